// The serial port's own process: what `vmm device serial` runs.
//
// Shapes   inherits the protocol's descriptors, kSerial*Fd below and nothing else; arguments after "serial": --no-input, --interactive, --jail-*.
// Threads  one: the event loop.
// Trust    guest bytes come through the access socket, user bytes through the input; the process can reach nothing but its
//          descriptors (serial.policy).
// Errors   exit code 0 after the monitor closed the access socket and the output was written, or its drain time was over;
//          1 if it could not start: a kFailed event says why.
//
// Input and output are shared with others (a shell, the monitor): their flags are not touched. Each read and write is
// preceded by a poll and small; the monitor hands over descriptors of its own where it can (serial_device.cc), so that a
// race for the last byte cannot block either. A file takes no poll and never blocks. End of input ends the input only.
// EIO from a terminal is a monitor in the background: tried again every half second.
//
// --interactive: Ctrl-A x asks the monitor to stop; Ctrl-A a, and Ctrl-A twice, send one Ctrl-A. Up to 4 KiB are taken
// ahead of the guest so that Ctrl-A x is seen though the guest reads nothing.
#ifndef VMM_DEVICES_PLATFORM_SERIAL_PROCESS_H_
#define VMM_DEVICES_PLATFORM_SERIAL_PROCESS_H_

namespace vmm {

inline constexpr int kSerialInterruptFd = 4;
inline constexpr int kSerialOutputFd = 6;
inline constexpr int kSerialInputFd = 7;  // absent with --no-input

inline constexpr int kSerialDrainMs = 1000;

// argv: "vmm", "device", "serial", arguments.
int RunSerialDevice(int argc, char** argv);

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_SERIAL_PROCESS_H_
