// The synthetic interrupt controller (SynIC) of one virtual processor at one trust level (VTL): its MSRs, the message and the
// event page, and the way of every message and event into them.
//
// Invariants
//   1. A message takes one way only: a queue of its source, then the slot, whoever writes it (message_slot.h).
//   2. Both pages are memory of ours for ever (overlay_page.h); the guest decides where it sees them, if at all. So "enabled"
//      is one word that posters load, and no page can vanish under a writer. A poster that saw "enabled" just before the guest
//      disabled the page writes what it would have written a moment earlier: kept, and seen when the guest enables the page
//      again.
//   3. While a message waits for a busy slot of a source that interrupts and is not auto-EOI, that source's EOI is watched,
//      besides the EOM that MessagePending asks for. The VP's thread watches first and then looks at the slot again: either the
//      slot is free by now, or the guest clears it later than that look, and the EOI behind that clearing is one that the watch
//      sees. (A guest that writes EOI before it clears the slot finds MessagePending afterwards: it was set before that look.)
//      A poster that finds the slot busy and unwatched rings for the VP's thread. The other way round, the thread says "not
//      watched" before it looks a last time: a post that this look misses is followed by a poster's load that sees it.
//   4. A timer has at most one message on its way, so that its producer is never full.
//
// Decisions where the specification leaves room: SCONTROL is 1 after reset (it says 0; KVM and others say 1, and some guests
// never write it). SINTx with a vector below 16 is #GP only if the source is not masked (guests write the reset value back).
// Where SIMP or SIEFP is enabled outside RAM there is no fault, the page is nowhere, and the SynIC counts as disabled for that
// kind of delivery; over a page that this level may not write it is #GP, as in OpenVMM. What a guest or device sends to a disabled SynIC is refused; intercepts and timer messages wait for it to
// be enabled. SINTs that are unmasked later get no interrupt for messages written before.
//
// Shapes   message page: 16 slots of 256 bytes; event page: 16 x 2048 flags; a queue a source, 16 messages a producer.
// Units    ReferenceClock's.
// Threads  Post, SignalEvent, NotifyLane, stats: as said there. The rest: confined to the VP's thread outside the guest.
// Trust    register values and both pages are the guest's: no page content but a slot's type is read. Sint is in range.
// Errors   false: #GP(0). HvStatus: what the sender's hypercall answers. No allocation after Create but in Save and Restore.
// Source   Hyper-V TLFS, "Inter-Partition Communication": "Synthetic Interrupt Controller" and following.
#ifndef VMM_DEVICES_HYPERV_SYNIC_SYNIC_H_
#define VMM_DEVICES_HYPERV_SYNIC_SYNIC_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "devices/guest_interface.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/overlay_page.h"
#include "devices/hyperv/synic/doorbell.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/message_queue.h"
#include "devices/hyperv/synic/message_slot.h"
#include "memory/gpa.h"

namespace vmm {

inline constexpr uint32_t kHvEventFlagCount = 2048;  // a source

// A trusted thread that posts. Each has its own room in every queue, and one thread uses it.
class Poster final {
 public:
  static constexpr Poster EventLoop() noexcept { return Poster(0); }
  // The thread of the VP, for all its VTLs.
  static constexpr Poster OfVp(VpIndex vp) noexcept { return Poster(uint64_t{vp.raw()} + 2); }
  [[nodiscard]] constexpr uint64_t number() const noexcept { return number_; }

 private:
  friend class Synic;
  constexpr explicit Poster(uint64_t number) noexcept : number_(number) {}
  static constexpr Poster Timers() noexcept { return Poster(1); }  // of the receiving VP itself
  uint64_t number_;
};

// Told on the VP's thread that timer messages were written into slots since TakeWrittenTimers was last called.
class TimerMessageSink {
 public:
  virtual ~TimerMessageSink() = default;
  virtual void OnTimerMessagesWritten() noexcept = 0;
};

struct SynicState {
  uint64_t scontrol = 0;
  uint64_t siefp = 0;
  uint64_t simp = 0;
  std::array<uint64_t, Sint::kCount> sints{};
  std::array<std::byte, kPageBytes> message_page{};
  std::array<std::byte, kPageBytes> event_page{};
  std::array<std::vector<HvMessage>, Sint::kCount> queued;
};

class Synic final {
 public:
  static constexpr uint32_t kQueueCapacity = 16;  // messages a producer and source: what the specification gives a port

  struct Stats {
    MessageSlot::Stats messages;    // of all sources
    uint64_t refused_full;          // posts: INSUFFICIENT_BUFFERS
    uint64_t refused_disabled;      // posts and events: INVALID_SYNIC_STATE
    uint64_t events;                // flags set that were clear
    uint64_t events_already_set;
    uint64_t kicks;                 // of the VP's thread
    uint64_t eoi_watches;           // times that an EOI had to be watched
    uint64_t bounded_runs;          // RunPending left work to its next call
  };

  // All outlive this. `vp_count`: of the partition; each VP's thread may post here.
  static absl::StatusOr<std::unique_ptr<Synic>> Create(uint32_t vp_count, OverlaySpace& overlays, SintInterrupts& interrupts,
                                                       ReferenceClock& clock, VpKick& kick);
  ~Synic();
  Synic(const Synic&) = delete;
  Synic& operator=(const Synic&) = delete;

  // --- any trusted thread; none blocks or allocates ---

  // From a guest or device. kInvalidParameter: type 0 or too long. kInvalidSynicState: nothing is delivered at present.
  // kInsufficientBuffers: the poster's room is full, try again later. Types are the caller's business. The poster's thread.
  [[nodiscard]] HvStatus Post(Poster poster, Sint sint, const HvMessage& message) noexcept;
  // Waits if the SynIC is disabled, finds room however full the rest is. kInsufficientBuffers: the poster has one on its way to
  // this source already, which is the caller's fault.
  [[nodiscard]] HvStatus PostIntercept(Poster poster, Sint sint, const HvMessage& message) noexcept;
  // kInvalidSynicState: disabled, or the source is masked. kInvalidParameter: `flag` is not below 2048.
  [[nodiscard]] HvStatus SignalEvent(Sint sint, uint32_t flag) noexcept;
  // The lane's device has kicked, or has died.
  void NotifyLane(Sint sint, uint32_t lane) noexcept;
  // What Post would find: messages can be delivered at present.
  [[nodiscard]] bool accepts_messages() const noexcept { return (on_.load(std::memory_order_relaxed) & kMessagesOn) != 0; }
  [[nodiscard]] bool accepts_events() const noexcept { return (on_.load(std::memory_order_relaxed) & kEventsOn) != 0; }
  [[nodiscard]] Stats stats() const noexcept;

  // --- the VP's thread, outside the guest ---

  // SCONTROL to EOM and SINT0 to SINT15.
  [[nodiscard]] static constexpr bool Has(uint32_t msr) noexcept {
    return (msr >= kHvMsrScontrol && msr <= kHvMsrEom) || (msr >= kHvMsrSint0 && msr < kHvMsrSint0 + Sint::kCount);
  }
  [[nodiscard]] bool ReadMsr(uint32_t msr, uint64_t& value) noexcept;
  [[nodiscard]] bool WriteMsr(uint32_t msr, uint64_t value) noexcept;

  // Before each entry: delivers what waits for this thread. From its return on, a kick comes for whatever comes later; if there
  // is more than one call may take, the kick is this call's own.
  void RunPending() noexcept;
  // EOM was written: all sources. WriteMsr(EOM) is this.
  void OnEom() noexcept;
  // The vector of `sint` got its EOI: all sources with that vector.
  void OnEoi(Sint sint) noexcept;

  // Bit n: an in-kernel timer may write to slot n, on this thread in KVM_RUN. On return no other thread writes to such a slot,
  // or will, and what is in it and what will be asks for EOM: the timer may be waiting for that (message_slot.h, invariant 5).
  void SetKernelTimerSints(uint16_t sints) noexcept;
  // True: on return no message is written until false. Events are signalled all the same.
  void SetPaused(bool paused) noexcept;

  // A lane, before the VP first runs. Returns its number.
  absl::StatusOr<uint32_t> AttachLane(Sint sint, LaneConsumer lane);

  // --- for SyntheticTimers, on the VP's thread ---

  // Outlives the Synic's last call of a function of this thread; once.
  void AttachTimers(TimerMessageSink& sink) noexcept { timers_ = &sink; }
  // Requires: the last message of this `timer` was written. Waits if the SynIC is disabled.
  void PostTimer(uint32_t timer, Sint sint, HvTicks expiration) noexcept;
  // Bit n: a message of timer n was written since the last call.
  [[nodiscard]] uint32_t TakeWrittenTimers() noexcept;

  // Requires: paused, and no other thread posts. Leaves everything as it was.
  [[nodiscard]] SynicState SaveState();
  // Into a new Synic, before the VP first runs. Lanes are not part of the state, their messages are.
  absl::Status RestoreState(const SynicState& state);

 private:
  // A slot of our page; stamps the delivery time of timer messages and says that they were written.
  class Slot final : public SlotMemory {
   public:
    Slot(HvMessage& slot, ReferenceClock& clock, std::atomic<uint32_t>& written_timers) noexcept
        : slot_(slot), clock_(clock), written_timers_(written_timers) {}
    [[nodiscard]] HvMessageType LoadType() noexcept override { return slot_.LoadType(); }
    void SetPending() noexcept override { slot_.SetPending(); }
    void Write(const HvMessage& message, uint8_t flags) noexcept override;

   private:
    GuestSlot slot_;
    ReferenceClock& clock_;
    std::atomic<uint32_t>& written_timers_;
  };
  struct Source;

  // on_: bits 15:0 masked sources, and these.
  static constexpr uint32_t kMessagesOn = 1u << 16;
  static constexpr uint32_t kEventsOn = 1u << 17;
  static constexpr unsigned kTimersSource = Sint::kCount;  // of the doorbell

  Synic(uint32_t vp_count, SintInterrupts& interrupts, ReferenceClock& clock, VpKick& kick);
  absl::Status MakeQueues();
  [[nodiscard]] Doorbell doorbell() noexcept { return Doorbell(doorbell_line_); }
  [[nodiscard]] HvStatus Enqueue(Poster poster, Sint sint, const HvMessage& message, bool intercept) noexcept;
  void DeliverFromPoster(Sint sint) noexcept;
  void Kick() noexcept;
  void Ring(unsigned source) noexcept;
  void Look(Sint sint) noexcept;
  void TellTimers() noexcept;
  void Watch(Sint sint, bool watched) noexcept;
  void UpdateOn() noexcept;
  void Configure(Sint sint) noexcept;
  void ConfigureAll() noexcept;
  [[nodiscard]] static bool MayPlacePage(const OverlayPage& page, uint64_t reg, uint64_t value) noexcept;
  void PlacePage(OverlayPage& page, uint64_t& reg, uint64_t value) noexcept;
  void WriteSint(Sint sint, uint64_t value) noexcept;
  [[nodiscard]] MessageProducer& Producer(Poster poster, Sint sint) noexcept;

  const uint32_t producer_count_;
  SintInterrupts& interrupts_;
  ReferenceClock& clock_;
  VpKick& kick_;
  TimerMessageSink* timers_ = nullptr;
  std::unique_ptr<OverlayPage> message_page_;
  std::unique_ptr<OverlayPage> event_page_;

  // The VP's thread's.
  uint64_t scontrol_ = kHvScontrolEnable;
  uint64_t siefp_ = 0;
  uint64_t simp_ = 0;
  std::array<uint64_t, Sint::kCount> sints_;
  bool paused_ = false;
  uint32_t watched_ = 0;    // sources whose EOI is
  uint32_t watchable_ = 0;  // sources that interrupt and are not auto-EOI

  // Mapped; the destructor lets the sources go first.
  std::byte* region_ = nullptr;
  size_t region_bytes_ = 0;
  std::vector<MessageProducer> producers_;  // of source 0, then of source 1; each its thread's
  std::array<std::unique_ptr<Source>, Sint::kCount> sources_;

  // Written by the VP's thread, loaded by posters.
  alignas(kCacheLineBytes) std::atomic<uint32_t> on_{0};
  std::atomic<uint32_t> ring_if_busy_{0};  // watchable and not watched
  std::atomic<uint32_t> kernel_timer_sints_{0};
  std::atomic<uint32_t> written_timers_{0};  // by who writes the slot, taken by the VP's thread

  DoorbellLine doorbell_line_;

  // Counters: relaxed, they order nothing.
  alignas(kCacheLineBytes) std::atomic<uint64_t> refused_full_{0};
  std::atomic<uint64_t> refused_disabled_{0};
  std::atomic<uint64_t> events_{0};
  std::atomic<uint64_t> events_already_set_{0};
  std::atomic<uint64_t> kicks_{0};
  std::atomic<uint64_t> eoi_watches_{0};
  std::atomic<uint64_t> bounded_runs_{0};
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_SYNIC_H_
