// The local APIC of one virtual processor at one trust level, for a virtual machine without one in the kernel: registers in xAPIC
// and x2APIC mode, priorities, interprocessor interrupts, the local vector table and its timer.
//
// The run loop, on the VP's thread:
//   after an exit        Disarm(). SyncCr8() with the guest's CR8. If the deadline has passed: OnDeadline().
//   accesses             ReadMsr/WriteMsr, ReadMmio/WriteMmio where ClaimsMmio says so.
//   before an entry      RunPending(). TakeInit(), then all the others of Take*: what is not taken would refuse each Arm. cr8()
//                        into the guest. If that can take an interrupt: NextInterrupt(), inject it, Accept() it. If it cannot but
//                        there is one: ask for the window.
//                        Then Arm(), or ArmForWindow() where the window was asked for, or there is none to ask for; if it
//                        answers false, from the top; else enter. The same before sleeping in HLT and before entering a
//                        lower level: WantsToRun() then says whether this level comes first, whatever RFLAGS.IF.
//
// Decisions where the manuals leave room
//   - The APIC id is fixed: writes of ID in xAPIC mode are dropped, as by newer processors. Above 254 x2APIC mode reaches it.
//   - Lowest-priority delivery is supported, by processor priority; so "redirectable IPI" is never an error. Remote read is not:
//     such a message, and other reserved delivery modes, are dropped, as are combinations of shorthand and mode that the manual
//     calls invalid. Interprocessor interrupts are edges, whatever the trigger bit; INIT as a level without assert is nothing.
//   - Delivery status is never "busy": a message has arrived when the write of ICR ends.
//   - There is no spurious interrupt: one that is asked for (NextInterrupt) and accepted is there, both on one thread.
//   - An illegal vector is an error of the sender and, since it is sent, of each receiver. The error interrupt comes at the first
//     error after a write of ESR.
//   - Disabled by software: fixed and lowest-priority interrupts are not received; pending ones stay and are delivered.
//   - Disabled by IA32_APIC_BASE: nothing is received, nothing deliverable, and all state is as after a reset.
//   - A level-triggered LINT0 is a pulse that is taken as a level held until the EOI: more pulses till then are none.
//   - xAPIC page: a write has 4 bytes at a multiple of 16, others are dropped; reads may have any size, what is beside the 4
//     bytes at a multiple of 16 reads as 0. Read-only registers drop writes, reserved ones read as 0 and are an error (ESR).
//
// Shapes   64 registers; vectors 16 to 255.
// Units    ApicClock's; minimum_period_ticks too.
// Threads  Post*, Matches, has_*, HasDeliverable, priority_class, stats: any, never block. The rest: confined to the VP's thread,
//          outside the guest. Why no interrupt or wake-up is lost: interrupt_inbox.h.
// Trust    registers, vectors, destinations: the guest's, all checked here.
// Errors   false: #GP(0). No allocation.
// Source   Intel SDM volume 3, "Advanced Programmable Interrupt Controller (APIC)"; AMD APM volume 2, chapter of the same name;
//          Hyper-V TLFS, "Virtual Interrupt Control".
#ifndef VMM_VCPU_LOCAL_APIC_LOCAL_APIC_H_
#define VMM_VCPU_LOCAL_APIC_LOCAL_APIC_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

#include "devices/guest_interface.h"
#include "vcpu/local_apic/apic_bus.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vcpu/local_apic/apic_timer.h"
#include "vcpu/local_apic/interrupt_inbox.h"
#include "vcpu/local_apic/vector_set.h"

namespace vmm {

// Told on the VP's thread of the EOI of each vector that is watched, when the registers are those after it.
class EoiObserver {
 public:
  virtual ~EoiObserver() = default;
  virtual void OnEoi(uint8_t vector) noexcept = 0;
};

class LocalApic final {
 public:
  struct Options {
    uint32_t id = 0;
    bool is_bsp = false;
    bool has_x2apic = true;
    bool has_tsc_deadline = true;
    bool suppresses_eoi_broadcasts = false;  // offers SVR bit 12
    unsigned physical_address_bits = 40;
    uint64_t minimum_period_ticks = 0;  // ApicTimer's
  };
  struct Stats {
    uint64_t posted;           // vectors, from anywhere
    uint64_t dropped;          // posts that a disabled APIC does not receive
    uint64_t kicks;
    uint64_t accepted;         // vectors, by the processor
    uint64_t sent;             // messages
    uint64_t invalid_sends;    // ICR writes that say nothing
    uint64_t invalid_accesses; // of the xAPIC page
  };

  // All outlive this.
  LocalApic(const Options& options, ApicBus& bus, ApicClock& clock, ApicDeadline& deadline, VpKick& kick) noexcept;
  LocalApic(const LocalApic&) = delete;
  LocalApic& operator=(const LocalApic&) = delete;

  // --- any thread ---

  // A message that named this APIC. Vectors of kFixed, kLowestPriority and kStartup mean something.
  void Post(ApicDeliveryMode mode, uint8_t vector, bool level = false) noexcept;
  void PostLint(unsigned pin) noexcept;  // 0 or 1: a pulse
  [[nodiscard]] bool Matches(const ApicDestination& destination) const noexcept;
  // Takes part in lowest-priority arbitration.
  [[nodiscard]] bool receives_fixed() const noexcept;
  // The processor's priority class: 0 to 15. As the VP's thread last wrote it.
  [[nodiscard]] uint8_t priority_class() const noexcept { return priority_class_.load(std::memory_order_relaxed); }
  // By priority alone; RFLAGS.IF is not known here. A few loads.
  [[nodiscard]] bool HasDeliverable() const noexcept { return inbox_.HighestAbove(priority_class()).has_value(); }
  // NMI, SMI, INIT, SIPI or ExtINT is pending.
  [[nodiscard]] bool HasEvent() const noexcept { return (inbox_.events() & kProcessorEvents) != 0; }
  [[nodiscard]] uint32_t id() const noexcept { return options_.id; }
  [[nodiscard]] Stats stats() const noexcept;

  // --- the VP's thread: interrupts ---

  // What other threads left for registers: errors, LINT pulses.
  void RunPending() noexcept;
  // Requires RunPending: this level has something for its processor, which comes before a lower level.
  [[nodiscard]] bool WantsToRun() const noexcept { return HasDeliverable() || HasEvent(); }
  [[nodiscard]] std::optional<uint8_t> NextInterrupt() const noexcept { return inbox_.HighestAbove(priority_class()); }
  // Requires: NextInterrupt answered `vector`, and no register was written since. The processor takes it.
  void Accept(uint8_t vector) noexcept;
  [[nodiscard]] bool TakeNmi() noexcept { return inbox_.TakeEvents(InterruptInbox::kNmi) != 0; }
  [[nodiscard]] bool TakeSmi() noexcept { return inbox_.TakeEvents(InterruptInbox::kSmi) != 0; }
  [[nodiscard]] bool TakeExtInt() noexcept { return inbox_.TakeEvents(InterruptInbox::kExtInt) != 0; }
  // True: the processor is to be initialised; this has been. The BSP then starts, others wait for a SIPI.
  [[nodiscard]] bool TakeInit() noexcept;
  // A processor that does not wait for it drops it.
  [[nodiscard]] std::optional<uint8_t> TakeStartup() noexcept { return inbox_.TakeStartup(); }
  [[nodiscard]] bool is_bsp() const noexcept { return (base_ & kApicBaseBsp) != 0; }

  // True: from here on, what becomes deliverable kicks, once. False: something is, or RunPending has work.
  [[nodiscard]] bool Arm() noexcept { return inbox_.Arm(priority_class()); }
  // The same for events alone: vectors wait for the interrupt window, or for the guest's unmasking by other means that exit.
  [[nodiscard]] bool ArmForWindow() noexcept { return inbox_.Arm(InterruptInbox::kOnlyEvents); }
  // Awake: no kicks till the next Arm.
  void Disarm() noexcept { inbox_.Disarm(); }

  // --- the VP's thread: registers ---

  // IA32_APIC_BASE, IA32_TSC_DEADLINE, the x2APIC range, and Hyper-V's EOI, ICR and TPR.
  [[nodiscard]] static bool Has(uint32_t msr) noexcept;
  [[nodiscard]] bool ReadMsr(uint32_t msr, uint64_t& value) noexcept;
  [[nodiscard]] bool WriteMsr(uint32_t msr, uint64_t value) noexcept;

  // The page, in xAPIC mode; an access that begins in it.
  [[nodiscard]] bool ClaimsMmio(uint64_t gpa) const noexcept {
    return mode() == Mode::kXapic && gpa / kApicPageBytes == (base_ & page_mask_) / kApicPageBytes;
  }
  void ReadMmio(uint64_t gpa, std::span<uint8_t> data) noexcept;
  void WriteMmio(uint64_t gpa, std::span<const uint8_t> data) noexcept;

  [[nodiscard]] uint64_t cr8() const noexcept { return tpr_ >> 4; }
  // What the guest has in CR8 after an exit; the low bits of TPR stay if that is no change.
  void SyncCr8(uint64_t cr8) noexcept;
  [[nodiscard]] uint64_t apic_base() const noexcept { return base_; }

  // The timer's deadline has passed, or something near.
  void OnDeadline() noexcept;
  // The processor's own local interrupts.
  void RaiseThermal() noexcept { static_cast<void>(RaiseLocal(ApicRegister::kLvtThermal)); }
  void RaisePerformance() noexcept;  // masks its entry, as the processor does

  // Vectors that end by being accepted. They are never in service.
  void SetAutoEoi(const VectorSet& vectors) noexcept { auto_eoi_ = vectors; }
  // `observer` outlives the last use of this; null: none.
  void SetEoiObserver(EoiObserver* observer) noexcept { observer_ = observer; }
  void SetWatchedEois(const VectorSet& vectors) noexcept { watched_ = vectors; }

  // As after power-up.
  void Reset() noexcept;

 private:
  enum class Mode : uint8_t { kDisabled, kXapic, kX2apic };
  // Which models a logical destination may use; the reserved ones match nothing.
  enum class Model : uint8_t { kFlat, kCluster, kReserved };
  static constexpr uint32_t kProcessorEvents = InterruptInbox::kNmi | InterruptInbox::kSmi | InterruptInbox::kInit |
                                               InterruptInbox::kStartup | InterruptInbox::kExtInt;

  [[nodiscard]] Mode mode() const noexcept {
    if ((base_ & kApicBaseEnabled) == 0) return Mode::kDisabled;
    return (base_ & kApicBaseX2apic) != 0 ? Mode::kX2apic : Mode::kXapic;
  }
  [[nodiscard]] static constexpr unsigned LvtIndex(ApicRegister entry) noexcept {
    return static_cast<unsigned>(entry) - static_cast<unsigned>(ApicRegister::kLvtTimer);
  }
  [[nodiscard]] uint32_t& Lvt(ApicRegister entry) noexcept { return lvt_[LvtIndex(entry)]; }
  [[nodiscard]] uint32_t LvtWritable(ApicRegister entry) const noexcept;
  [[nodiscard]] uint32_t SvrWritable() const noexcept;
  [[nodiscard]] uint32_t LogicalId() const noexcept;

  // None: there is no such register in this mode.
  [[nodiscard]] std::optional<uint32_t> Read(uint8_t number) noexcept;
  // False: there is no such register in this mode. Reserved bits have been dealt with.
  [[nodiscard]] bool Write(uint8_t number, uint32_t value) noexcept;
  [[nodiscard]] bool ReadX2apic(uint8_t number, uint64_t& value) noexcept;
  [[nodiscard]] bool WriteX2apic(uint8_t number, uint64_t value) noexcept;
  [[nodiscard]] bool WriteBase(uint64_t value) noexcept;
  void WriteSvr(uint32_t value) noexcept;
  void WriteLvt(ApicRegister entry, uint32_t value) noexcept;
  void WriteIcr(uint32_t low, uint32_t high) noexcept;
  void Send(uint32_t low, uint32_t high) noexcept;
  void Eoi() noexcept;

  void ResetRegisters() noexcept;
  void Publish() noexcept;
  void UpdatePriority() noexcept;
  void ConfigureTimer() noexcept;
  void RunTimer() noexcept;
  // False: masked.
  bool RaiseLocal(ApicRegister entry) noexcept;
  void RaiseOwn(uint8_t vector, bool level) noexcept;
  void RecordError(uint32_t error) noexcept;
  void RaiseErrorInterrupt() noexcept;
  void Kick(bool wanted) noexcept;
  static void Count(std::atomic<uint64_t>& counter) noexcept { counter.fetch_add(1, std::memory_order_relaxed); }

  const Options options_;
  const uint64_t page_mask_;
  ApicBus& bus_;
  VpKick& kick_;
  EoiObserver* observer_ = nullptr;

  // The VP's thread's.
  uint64_t base_ = 0;
  uint32_t tpr_ = 0;
  uint32_t svr_ = 0;
  uint32_t ldr_ = 0;  // xAPIC's
  uint32_t dfr_ = 0;
  uint32_t esr_ = 0;
  uint32_t icr_low_ = 0;
  uint32_t icr_high_ = 0;
  std::array<uint32_t, kApicLvtCount> lvt_{};
  bool error_interrupt_sent_ = false;  // since ESR was written
  VectorSet isr_;
  VectorSet auto_eoi_;
  VectorSet watched_;
  ApicTimer timer_;

  InterruptInbox inbox_;
  // What posters look at: 1:0 Mode, 2 software-enabled, 4:3 Model, 15:8 xAPIC's logical id. release by the VP's thread, acquire
  // by posters: who was told by that processor of a change sees it. One word, so never half a change.
  alignas(64) std::atomic<uint32_t> published_{0};
  // relaxed: a look of other threads decides nothing; what wakes the VP is the threshold that it armed with.
  std::atomic<uint8_t> priority_class_{0};
  // Errors since ESR was written last. Posters set, the VP's thread takes. relaxed: an event of the inbox tells of a poster's.
  std::atomic<uint32_t> errors_{0};

  // Counters: relaxed, they order nothing.
  alignas(64) std::atomic<uint64_t> posted_{0};
  std::atomic<uint64_t> dropped_{0};
  std::atomic<uint64_t> kicks_{0};
  std::atomic<uint64_t> accepted_{0};
  std::atomic<uint64_t> sent_{0};
  std::atomic<uint64_t> invalid_sends_{0};
  std::atomic<uint64_t> invalid_accesses_{0};
};

}  // namespace vmm

#endif  // VMM_VCPU_LOCAL_APIC_LOCAL_APIC_H_
