// The registers by which a test kernel exercises its monitor: scratch, page remapping, interrupt lines, exiting storage.
//
// Threads  any. Scratch and storage are atomic byte by byte: two processors that write one word at once may mix it.
// Trust    values are the guest's; TestMachineHost checks what it is asked for.
// Source   QEMU, "pc-testdev".
#ifndef VMM_DEVICES_PLATFORM_TEST_MACHINE_TEST_REGISTERS_H_
#define VMM_DEVICES_PLATFORM_TEST_MACHINE_TEST_REGISTERS_H_

#include <atomic>
#include <cstddef>
#include <memory>

#include "devices/io_device.h"
#include "devices/platform/test_machine/test_machine_host.h"

namespace vmm {

// Plain bytes behind an exit: reads give what was written, wherever and however wide.
class PlainStorage final : public IoDevice {
 public:
  explicit PlainStorage(size_t bytes) : bytes_(std::make_unique<std::atomic<std::byte>[]>(bytes)) {}
  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

 private:
  // relaxed, all of them: each byte is its own, and orders nothing.
  const std::unique_ptr<std::atomic<std::byte>[]> bytes_;
};

// A 4-byte write of an address drops the host mapping of its page. Other widths mean nothing; reads are 0.
class RemapRegister final : public IoDevice {
 public:
  explicit RemapRegister(TestMachineHost& host) : host_(host) {}
  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

 private:
  TestMachineHost& host_;
};

// One byte a line, its level: 0 or not.
class InterruptLines final : public IoDevice {
 public:
  explicit InterruptLines(TestMachineHost& host) : host_(host) {}
  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

 private:
  TestMachineHost& host_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_TEST_MACHINE_TEST_REGISTERS_H_
