// The real-time clock's own process: what `vmm device rtc` runs.
//
// Shapes   inherits the protocol's access and event sockets (kTrapped*Fd) and nothing else; arguments after "rtc": --jail-*.
// Threads  one: the event loop.
// Trust    the guest's accesses come through the access socket; the process can read the host's clock, and reach nothing (rtc.policy).
// Errors   exit code 0 after the monitor closed the access socket; 1 if it could not start: a kFailed event says why.
#ifndef VMM_DEVICES_PLATFORM_RTC_RTC_PROCESS_H_
#define VMM_DEVICES_PLATFORM_RTC_RTC_PROCESS_H_

namespace vmm {

// argv: "vmm", "device", "rtc", arguments.
int RunRtcDevice(int argc, char** argv);

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_RTC_RTC_PROCESS_H_
