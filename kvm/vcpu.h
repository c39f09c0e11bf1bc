// One KVM vCPU: its registers, and KVM_RUN.
//
// Shapes   run() is the page that KVM and we share for the last exit; register structs are KVM's own.
// Threads  confined to the thread that calls Run, but for RequestExit: any. Before the first Run, its creator's.
// Trust    run() is written by the kernel; what it says of the guest's access (port, address, size) the guest chose.
// Errors   Create, getters, setters: Status with errno. Run: a small enum, no allocation.
// Source   Linux, "The Definitive KVM API Documentation".
#ifndef VMM_KVM_VCPU_H_
#define VMM_KVM_VCPU_H_

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "kvm/uapi.h"

namespace vmm::kvm {

// What KVM_RUN returned. kExit: look at run().exit_reason.
enum class RunResult : uint8_t {
  kExit,
  kInterrupted,   // a signal or RequestExit; nothing of the guest's is pending
  kMemoryFault,   // -EFAULT: see run().exit_reason for KVM_EXIT_MEMORY_FAULT, else no detail
  kError,         // anything else, errno in last_error()
};

class Vcpu final {
 public:
  static absl::StatusOr<std::unique_ptr<Vcpu>> Create(int vm_fd, uint32_t index, uint32_t run_bytes);
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;
  ~Vcpu();

  [[nodiscard]] RunResult Run() noexcept;
  [[nodiscard]] kvm_run& run() noexcept { return *run_; }
  // The data of a KVM_EXIT_IO, size * count bytes; empty if the kernel's offsets leave the page.
  [[nodiscard]] std::span<std::byte> io_data() noexcept;
  [[nodiscard]] int last_error() const noexcept { return last_error_; }

  // Makes the Run that is under way, or else the next one, return kInterrupted. The caller also signals the thread:
  // without a signal a vCPU that is inside the guest stays there.
  void RequestExit() noexcept;
  // The owner takes note: Run may run again.
  void ClearExitRequest() noexcept;

  [[nodiscard]] uint32_t index() const noexcept { return index_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  absl::Status SetCpuid(std::span<const kvm_cpuid_entry2> entries);
  absl::StatusOr<kvm_regs> GetRegs() const;
  absl::Status SetRegs(const kvm_regs& regs);
  absl::StatusOr<kvm_sregs> GetSregs() const;
  absl::Status SetSregs(const kvm_sregs& sregs);
  absl::Status SetFpu(const kvm_fpu& fpu);
  absl::Status SetMsrs(std::span<const kvm_msr_entry> msrs);
  absl::StatusOr<uint64_t> GetMsr(uint32_t index) const;
  absl::Status SetMpState(uint32_t state);
  absl::Status EnableCap(uint32_t capability, uint64_t argument = 0);
  // kHz, 0 if KVM does not say.
  [[nodiscard]] uint32_t TscKhz() const noexcept;

 private:
  Vcpu(OwnedFd fd, kvm_run* run, uint32_t run_bytes, uint32_t index) noexcept
      : fd_(std::move(fd)), run_(run), run_bytes_(run_bytes), index_(index) {}

  const OwnedFd fd_;
  kvm_run* const run_;
  const uint32_t run_bytes_;
  const uint32_t index_;
  int last_error_ = 0;
};

}  // namespace vmm::kvm

#endif  // VMM_KVM_VCPU_H_
