// From the queue into the guest's slot: the one writer of one slot of a message page (SIM), whichever thread it is.
//
// Invariants
//   1. Who holds the claim is the queue's consumer and the slot's only writer; all members below are its own. The claim is
//      tried for, never waited for. Who fails leaves a mark, and the holder looks again before it goes: nobody's reason to look
//      is lost.
//   2. Every message goes through the queue, also one that its poster delivers itself: so direct delivery keeps the order.
//   3. The slot is written only while its type is 0, and the type last. While it is not, only the flag byte is touched, by an
//      atomic OR; then the type is read again: the guest clears the type and then reads the flag, so one of the two sees the
//      other.
//   4. A message leaves the queue when it is in the slot, not before: off, paused and busy lose nothing.
//   5. Where somebody else writes the slot too and may be waiting for it (always_pending), each message of ours carries
//      MessagePending, one that was there before included. The other sets the flag when it finds the slot taken, but in the
//      message that was there then: the guest clears that one, and before it reads the flag our next message is in its place,
//      without the flag. No EOM would come, and with auto-EOI no EOI either, and the other waits for ever.
//
// The next look is due: after a post (the poster's own TryDeliver, or the doorbell), after EOM, after an EOI of the source's
// vector, after TryConfigure (which looks itself). Never because of time.
//
// Shapes   one HvMessage in the guest's memory.
// Units    none.
// Threads  TryDeliver: any trusted thread, never blocks, bounded work. TryConfigure: the VP's thread. stats: any.
// Trust    the slot is guest memory: only its type is ever read, and only compared with 0. A guest that plays with it costs two
//          reads a call, and loses its own messages.
// Errors   none: Delivery says what the caller must do, stats what happened.
// Source   Hyper-V TLFS, "Inter-Partition Communication": "SIM Page", "Message Pending", "EOM register".
#ifndef VMM_DEVICES_HYPERV_SYNIC_MESSAGE_SLOT_H_
#define VMM_DEVICES_HYPERV_SYNIC_MESSAGE_SLOT_H_

#include <atomic>
#include <cstdint>

#include "devices/hyperv/synic/doorbell.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_queue.h"

namespace vmm {

// The four touches of a slot that there are; tests put a guest's steps between them.
class SlotMemory {
 public:
  virtual ~SlotMemory() = default;
  // 0: free, and all that the guest read of the last message is behind it.
  [[nodiscard]] virtual HvMessageType LoadType() noexcept = 0;
  // Nothing but the bit.
  virtual void SetPending() noexcept = 0;
  // Body, then header, the type last.
  virtual void Write(const HvMessage& message, uint8_t flags) noexcept = 0;
};

// A slot in memory that the guest sees, which outlives it.
class GuestSlot final : public SlotMemory {
 public:
  explicit GuestSlot(HvMessage& slot) noexcept : slot_(slot) {}
  [[nodiscard]] HvMessageType LoadType() noexcept override;
  void SetPending() noexcept override;
  void Write(const HvMessage& message, uint8_t flags) noexcept override;

 private:
  HvMessage& slot_;
};

struct SlotConfig {
  SlotMemory* memory = nullptr;  // null: SCONTROL or SIMP is off; messages wait
  bool interrupts = true;        // false: the SINT is masked or polling; messages are written all the same
  bool paused = false;           // the machine is: messages wait
  bool vp_only = false;          // the VP's thread alone writes: somebody who knows nothing of the claim does so too, on it
  bool always_pending = false;   // that somebody may wait for the slot, and EOM alone tells it: an EOM after each message
};

enum class SlotState : uint8_t {
  kIdle,       // nothing waits
  kWritten,    // a message was written
  kBusy,       // the slot is not free; the guest was asked to write EOM
  kOff,        // something waits, but there is no slot, or the machine is paused
  kElsewhere,  // another thread has the claim, and will look for us
  kNotOurs,    // something waits, and only the VP's thread may write: look_again is set
};

struct Delivery {
  SlotState state;
  bool interrupt = false;   // raise the source's vector
  bool look_again = false;  // ring the VP's doorbell for this source, and kick if that says so
};

class MessageSlot final {
 public:
  struct Stats {
    uint64_t written;     // messages
    uint64_t no_interrupt;  // of those, with the interrupt masked
    uint64_t busy;        // looks that found the slot taken
    uint64_t off;         // looks that found no slot
    uint64_t elsewhere;   // looks left to another thread
  };

  // The queue outlives this, and nobody else consumes it.
  explicit MessageSlot(MessageQueue& queue) noexcept : queue_(queue) {}
  MessageSlot(const MessageSlot&) = delete;
  MessageSlot& operator=(const MessageSlot&) = delete;

  enum class Caller : uint8_t { kPoster, kVpThread };
  [[nodiscard]] Delivery TryDeliver(Caller caller = Caller::kPoster) noexcept;
  // Takes effect, and looks. kElsewhere: nothing was changed, a poster is at it this moment; try again. Otherwise no thread
  // uses the earlier memory any more.
  [[nodiscard]] Delivery TryConfigure(SlotConfig config) noexcept;

  [[nodiscard]] Stats stats() const noexcept;

 private:
  enum class Claim : uint32_t { kFree, kHeld, kHeldLookAgain };
  static constexpr int kLooks = 3;  // a call; a fourth is left to the VP's thread
  [[nodiscard]] bool Enter() noexcept;
  [[nodiscard]] Delivery LookAndLeave(Caller caller) noexcept;
  [[nodiscard]] SlotState Look(Caller caller) noexcept;

  MessageQueue& queue_;
  SlotConfig config_;  // the claim holder's
  alignas(kCacheLineBytes) std::atomic<Claim> claim_{Claim::kFree};
  // Counters: relaxed, they order nothing.
  std::atomic<uint64_t> elsewhere_{0};
  alignas(kCacheLineBytes) std::atomic<uint64_t> written_{0};
  std::atomic<uint64_t> no_interrupt_{0};
  std::atomic<uint64_t> busy_{0};
  std::atomic<uint64_t> off_{0};
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_MESSAGE_SLOT_H_
