// One virtual processor: a thread that runs the guest and answers its exits.
//
// Shapes   one KVM vCPU a trust level, level 0 first, all run by the same thread, one at a time: the active one. A level is the
//          index of an array; which there are and who runs is LevelScheduler's to decide.
// Threads  Create, Start, Join: the owner's. RequestStop, Kick, may_be_in_guest, stats: any. The rest is the VP thread's own.
// Trust    ports, addresses and data of an exit are the guest's: the buses check them.
// Errors   Create, Start: Status. What ends the run is told to MachineControl, once; a guest cannot end the process.
//
// The run loop neither allocates nor logs on its way from KVM_RUN to KVM_RUN, but for what ends the machine.
//
// Why no kick is lost. "Kicked" is a flag, kicked_, and its effect is KVM's immediate_exit byte, then a signal.
//   A kick      sets kicked_; whoever finds it set has nothing to do. Then immediate_exit of every level, because it cannot know
//               which one runs; then, if in_guest_, the signal.
//   The loop    clears immediate_exit, then kicked_, then PrepareToEnter, then sets in_guest_, then KVM_RUN.
//   Before      kicked_ is cleared: the work was told of before the exchange that set the flag, the clearing exchange reads that
//   (or a coalesced one's), so PrepareToEnter sees the work. If the byte is set late, KVM_RUN returns at once: one idle round.
//   After       kicked_ is cleared, it is set again, and immediate_exit after the loop's clearing of it, which came before: it
//   stays set, and KVM_RUN returns without entering the guest.
//   During      KVM_RUN: immediate_exit is set before in_guest_ is read, in_guest_ is set before KVM reads immediate_exit, each
//   pair sequentially consistent. So the kick sees in_guest_ and signals, or KVM sees the byte. A signal that comes between
//   KVM's look at the byte and the guest is pending, which KVM looks for with interrupts off, last of all.
//   Asleep      (no level runs): the thread waits for kicked_ itself to be set.
// The loop leaves the two flags alone while kicked_ is clear and the last KVM_RUN was not interrupted: the byte is set by kicks
// alone, and one that set it late is seen by the interrupted KVM_RUN that it causes.
#ifndef VMM_VCPU_VIRTUAL_PROCESSOR_H_
#define VMM_VCPU_VIRTUAL_PROCESSOR_H_

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "devices/guest_interface.h"
#include "devices/io_bus.h"
#include "devices/machine_control.h"
#include "kvm/vcpu.h"
#include "vcpu/level_scheduler.h"
#include "vcpu/shared_registers.h"
#include "vcpu/vp_requests.h"

namespace vmm {

// Exits since the start, by what they asked for. Each is written by the VP thread, relaxed; read by any.
struct VpStats {
  std::atomic<uint64_t> pio{0};
  std::atomic<uint64_t> mmio{0};
  std::atomic<uint64_t> msr{0};
  std::atomic<uint64_t> hypercall{0};
  std::atomic<uint64_t> halt{0};            // of a level without a local APIC in the kernel
  std::atomic<uint64_t> switches{0};        // of trust levels, either way
  std::atomic<uint64_t> memory_fault{0};
  std::atomic<uint64_t> interrupted{0};
  std::atomic<uint64_t> other{0};
  // Accesses that no device answered.
  std::atomic<uint64_t> unclaimed{0};
};

class VirtualProcessor final : public VpKick {
 public:
  // What is borrowed outlives the VirtualProcessor.
  struct Environment {
    IoBus& ports;
    IoBus& memory;
    MachineControl& control;
    // What the guest sees of a hypervisor, where there is one: MSR exits, hypercalls, PrepareToEnter.
    GuestInterface* guest = nullptr;
    // OUT of one byte from AL to this port is a hypercall. The guest's code is `nop; out imm8, al`: a call that is to be made
    // again continues at the nop, because KVM skips the OUT only where RIP still points at it.
    uint16_t hypercall_port = 0;
    // The VP's thread calls it first, to give up what it does not need. An error ends the machine before the guest has run.
    const std::function<absl::Status()>* confine = nullptr;
    // The machine's. RequestStop stops them all (the machine ends), the end of the thread leaves.
    VpRequests* requests = nullptr;
    // Where there are levels above 0.
    LevelScheduler* scheduler = nullptr;
  };
  // A level above 0: a vCPU of another VM over the same memory, without a local APIC in the kernel.
  struct UpperLevel {
    std::unique_ptr<kvm::Vcpu> vcpu;
    GuestInterface* guest;
  };
  // Installs, once a process, the do-nothing handler of the signal that brings a vCPU out of the guest (SIGRTMIN).
  // `above`: levels 1 and up, at most SharedRegisters::kMaxLevels - 1 of them; then there is a scheduler.
  static absl::StatusOr<std::unique_ptr<VirtualProcessor>> Create(std::unique_ptr<kvm::Vcpu> vcpu, Environment environment,
                                                                  std::vector<UpperLevel> above = {});
  VirtualProcessor(const VirtualProcessor&) = delete;
  VirtualProcessor& operator=(const VirtualProcessor&) = delete;
  // Stops and joins.
  ~VirtualProcessor() override;

  absl::Status Start();
  // The thread leaves the guest and ends. Of a string access that is under way the rest is left undone: the machine ends.
  void RequestStop() noexcept;
  void Join() noexcept;

  // Coalesced. The VP's own thread too, before Start and after Join too.
  void Kick() noexcept override;
  // False, seen after a Kick: the guest does not run, and PrepareToEnter comes before it does.
  [[nodiscard]] bool may_be_in_guest() const noexcept { return in_guest_.load(std::memory_order_seq_cst); }

  // The VP's thread, in PrepareToEnter (elsewhere it does nothing: in the middle of a hypercall the registers are those at the
  // call, and what is written to the general ones then is lost to the call's result): completes what the last exit left (see kvm/vcpu.h), so that the vCPU's registers are those
  // between two instructions and may be read and written. Costs a KVM_RUN that does not enter the guest, and an idle round.
  // False: the machine ends.
  [[nodiscard]] bool Settle() noexcept;

  // The VP's thread, in LevelScheduler::BeforeEntry: `level` is active from here on, with the registers that all share. The one that
  // was active is settled; so is every level that is not active, for ever. False: the machine ends.
  [[nodiscard]] bool SwitchTo(size_t level) noexcept;
  [[nodiscard]] size_t active() const noexcept { return active_; }
  [[nodiscard]] kvm::Vcpu& vcpu(size_t level) noexcept { return *levels_[level].vcpu; }
  // Injects an exception into the active level; what it meets on its way makes it worse, as in a processor. False: the machine ends.
  [[nodiscard]] bool Inject(uint8_t vector, std::optional<uint32_t> error_code) noexcept;
  // The VP's thread: to a port's device, what the guest has written earlier.
  void WritePort(uint16_t port, std::span<const std::byte> data) noexcept;
  // Ends the machine. For who finds on this thread that KVM does not do what it must.
  void Fail(absl::string_view what) noexcept;

  [[nodiscard]] kvm::Vcpu& vcpu() noexcept { return vcpu(0); }
  [[nodiscard]] const VpStats& stats() const noexcept { return stats_; }

 private:
  using Level = UpperLevel;
  VirtualProcessor(std::vector<Level> levels, Environment environment) : levels_(std::move(levels)), environment_(environment) {}
  static void* ThreadMain(void* self);
  // False: the machine ends.
  [[nodiscard]] bool Confine() noexcept;
  void FetchRegisters() noexcept;
  void RunLoop() noexcept;
  // False: the machine ends.
  [[nodiscard]] bool HandleExit() noexcept;
  [[nodiscard]] bool DispatchExit() noexcept;
  // The exit's instruction is as if it had not begun, and nothing is left of it for KVM to do. False: the machine ends.
  [[nodiscard]] bool PutBack() noexcept;
  void HandlePio() noexcept;
  void HandleMmio() noexcept;
  void HandleMsr(bool write) noexcept;
  [[nodiscard]] bool IsHypercall() const noexcept;
  [[nodiscard]] bool HandleHypercall() noexcept;
  [[nodiscard]] bool HandleMemoryFault() noexcept;
  void ReportFailure(absl::string_view what) noexcept;
  // What comes before an entry. False: nothing runs, from the top.
  [[nodiscard]] bool PrepareToEnter() noexcept;
  [[nodiscard]] kvm::Vcpu& active_vcpu() const noexcept { return *levels_[active_].vcpu; }
  [[nodiscard]] GuestInterface* guest() const noexcept { return levels_[active_].guest; }

  const std::vector<Level> levels_;
  size_t active_ = 0;  // the VP thread's
  SharedRegisters shared_;
  const Environment environment_;
  // release by RequestStop, acquire by the run loop.
  std::atomic<bool> stop_{false};
  // What Kick and the loop share: see the top.
  std::atomic<bool> kicked_{false};
  std::atomic<bool> in_guest_{false};
  int process_id_ = 0;             // set before the thread starts: asking costs a kick a system call more
  std::atomic<int> thread_id_{0};  // the kernel's; set by the thread before in_guest_ is ever true
  bool unsettled_ = false;         // the VP thread's: an exit waits for its completion
  bool left_by_call_ = false;      // the VP thread's: the active level's last exit was its call of another; no exception waits
  bool in_exit_ = false;           // the VP thread's: a device or the guest interface is being asked
  bool put_back_ = false;          // the VP thread's: the exit that is being handled is to be put back
  bool failed_ = false;            // the VP thread's: the machine ends, found by Settle
  VpStats stats_;
  pthread_t thread_{};
  bool started_ = false;  // owner's
};

}  // namespace vmm

#endif  // VMM_VCPU_VIRTUAL_PROCESSOR_H_
