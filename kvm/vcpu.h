// One KVM vCPU: its registers, and KVM_RUN.
//
// Shapes   run() is the page that KVM and we share for the last exit; register structs are KVM's own.
// Threads  confined to the thread that calls Run, but for RequestExit: any. Before the first Run, its creator's.
// State    what the last exit left for KVM to complete (the instruction to skip, the value that was read, dirty registers) takes
//          effect in the next Run: until then GetRegs shows the guest at the instruction, and SetRegs is overwritten by it.
// Trust    run() is written by the kernel; what it says of the guest's access (port, address, size) the guest chose.
// Errors   Create, getters, setters: Status with errno. Run: a small enum, no allocation.
// Source   Linux, "The Definitive KVM API Documentation".
#ifndef VMM_KVM_VCPU_H_
#define VMM_KVM_VCPU_H_

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "kvm/uapi.h"
#include "memory/gpa.h"

namespace vmm::kvm {

// What KVM_RUN returned. kExit: look at run().exit_reason.
enum class RunResult : uint8_t {
  kExit,
  kInterrupted,   // a signal or RequestExit; nothing of the guest's is pending
  kMemoryFault,   // -EFAULT: see memory_fault()
  kError,         // anything else, errno in last_error()
};

// Where KVM could not go on, when it says so.
struct MemoryFault {
  Gpa gpa;  // rounded down to the page
  uint64_t bytes;
  bool is_private;  // as the access was made; KVM does not say which access
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
  // Of the last Run, if it returned kMemoryFault and KVM named the place; else the mapping behind guest RAM refused, somewhere.
  [[nodiscard]] std::optional<MemoryFault> memory_fault() const noexcept;

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
  absl::StatusOr<kvm_fpu> GetFpu() const;
  absl::Status SetFpu(const kvm_fpu& fpu);
  // GetFpu and SetFpu see the processor's memory image only: on a host with XSAVE, registers that are in their initial state are
  // not in it. These two are right everywhere. False: KVM refused.
  [[nodiscard]] bool GetXsave(kvm_xsave& out) const noexcept;
  [[nodiscard]] bool SetXsave(const kvm_xsave& xsave) noexcept;
  absl::Status SetMsrs(std::span<const kvm_msr_entry> msrs);
  // As this process, not as the guest: unfiltered, and KVM leaves out side effects that only a guest's write has. False: refused.
  [[nodiscard]] bool SetMsr(uint32_t index, uint64_t value) noexcept;
  absl::StatusOr<uint64_t> GetMsr(uint32_t index) const;
  absl::StatusOr<uint32_t> GetMpState() const;
  absl::Status SetMpState(uint32_t state);
  absl::StatusOr<kvm_vcpu_events> GetVcpuEvents() const;
  absl::Status SetVcpuEvents(const kvm_vcpu_events& events);
  // The exception is the next thing that happens to the guest, at the RIP that it has by then. One that was on its way makes
  // it a double fault, as in a processor that meets a second; a second double fault is refused. False: refused, by KVM or so.
  [[nodiscard]] bool InjectException(uint8_t vector, std::optional<uint32_t> error_code) noexcept;
  // An exception that KVM would forget when dirty registers are loaded (one that is pending, not yet on its way) is on its way after
  // this. False: KVM refused.
  [[nodiscard]] bool KeepException() noexcept;
  // Without an interrupt controller in the kernel: the next Run delivers this vector. Requires run().ready_for_interrupt_injection
  // of the last one, which said that nothing is on its way and that the guest's flags allow it. False: KVM refused.
  [[nodiscard]] bool Interrupt(uint8_t vector) noexcept;
  // A non-maskable interrupt; KVM holds it back while one is being handled. False: KVM refused.
  [[nodiscard]] bool Nmi() noexcept;
  absl::Status EnableCap(uint32_t capability, uint64_t argument = 0);
  // KVM's synthetic interrupt controller: before its routes are made. Turns SCONTROL on.
  absl::Status EnableSynic2() { return EnableCap(KVM_CAP_HYPERV_SYNIC2); }

  // guest TSC = host TSC + this, where KVM does not scale it.
  absl::StatusOr<uint64_t> GetTscOffset() const;
  absl::Status SetTscOffset(uint64_t offset);

  // With a local APIC in the kernel: the guest would take an interrupt at its next instruction, by its priority and its flags. Requires
  // synced registers. False also where KVM does not tell: its local APIC's timer in one-shot and periodic mode, and its synthetic
  // timers, raise their interrupt only when the vCPU runs.
  [[nodiscard]] bool HasDeliverableInterrupt() noexcept;
  // DR0 to DR3, DR6, DR7. False: KVM refused.
  [[nodiscard]] bool GetDebugRegs(kvm_debugregs& out) const noexcept;
  [[nodiscard]] bool SetDebugRegs(const kvm_debugregs& registers) noexcept;
  // XCR0; nothing and no error where the host has no XSAVE. False: KVM refused.
  [[nodiscard]] bool GetXcrs(kvm_xcrs& out) const noexcept;
  [[nodiscard]] bool SetXcrs(const kvm_xcrs& xcrs) noexcept;

  // From the next exit on, synced_regs (and synced_sregs) hold the guest's registers, without a system call.
  void EnableSyncRegs(bool with_sregs) noexcept;
  [[nodiscard]] kvm_regs& synced_regs() noexcept { return run_->s.regs.regs; }
  [[nodiscard]] const kvm_sregs& synced_sregs() const noexcept { return run_->s.regs.sregs; }
  [[nodiscard]] kvm_sregs& synced_sregs() noexcept { return run_->s.regs.sregs; }
  // Both, by system calls: before the first Run, and after SetRegs and SetSregs. False: KVM refused.
  [[nodiscard]] bool FetchSyncedRegs() noexcept;
  // The next Run begins with loading synced_regs, before it completes the last exit: an instruction is skipped only if RIP still
  // points at it.
  void MarkSyncedRegsDirty() noexcept { run_->kvm_dirty_regs |= KVM_SYNC_X86_REGS; }
  // The same of synced_sregs: the next Run fails with EINVAL where the processor would refuse them.
  void MarkSyncedSregsDirty() noexcept { run_->kvm_dirty_regs |= KVM_SYNC_X86_SREGS; }
  // Maps guest memory for all vCPUs as if this one had read it (the VM then has something to drop). False: no
  // KVM_CAP_PRE_FAULT_MEMORY, no nested paging, or no memory there.
  [[nodiscard]] bool PreFault(Gpa start, uint64_t bytes) noexcept;
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
