#include "devices/hyperv/synic/synic.h"

#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "devices/hyperv/synic/post_result.h"

namespace vmm {
namespace {

constexpr int kRounds = 16;  // of RunPending
constexpr int kLooks = 8;    // at one source

constexpr uint32_t Bit(Sint sint) noexcept { return 1u << sint.raw(); }

constexpr bool IsLegalSint(uint64_t value) noexcept {
  return (value & kHvSintMasked) != 0 || (value & kHvSintVectorMask) >= kHvFirstVector;
}

template <typename Function>
void ForEachSint(Function function) {
  for (uint64_t n = 0; n < Sint::kCount; ++n) function(*Sint::From(n));
}

// One of several threads counts at a time, or several do.
void Count(std::atomic<uint64_t>& counter) noexcept { counter.fetch_add(1, std::memory_order_relaxed); }

// Of SIMP or SIEFP.
constexpr bool IsSamePlace(uint64_t before, uint64_t after) noexcept {
  constexpr uint64_t kWhere = ~((uint64_t{1} << kHvOverlayPageShift) - 1) | kHvOverlayEnable;
  return (before & kWhere) == (after & kWhere);
}

}  // namespace

struct Synic::Source {
  Source(std::unique_ptr<MessageQueue> source_queue, HvMessage& guest_slot, ReferenceClock& clock,
         std::atomic<uint32_t>& written_timers)
      : queue(std::move(source_queue)), memory(guest_slot, clock, written_timers), slot(*queue) {}

  const std::unique_ptr<MessageQueue> queue;
  Slot memory;
  MessageSlot slot;
};

void Synic::Slot::Write(const HvMessage& message, uint8_t flags) noexcept {
  HvTimerMessagePayload payload;
  if (message.header.type != HvMessageType::kTimerExpired || message.header.payload_size != sizeof(payload)) {
    return slot_.Write(message, flags);
  }
  std::memcpy(&payload, message.payload, sizeof(payload));
  payload.delivery_time = clock_.Now().raw();
  HvMessage stamped;
  stamped.header = message.header;
  std::memcpy(stamped.payload, &payload, sizeof(payload));
  // Before the message: a guest that has read it, and then reads the timer's CONFIG, must find what this leads to. release: pairs
  // with the acquire of TakeWrittenTimers.
  if (payload.timer_index < kHvStimerCount) {
    written_timers_.fetch_or(1u << payload.timer_index, std::memory_order_release);
  }
  slot_.Write(stamped, flags);
}

Synic::Synic(uint32_t vp_count, SintInterrupts& interrupts, ReferenceClock& clock, VpKick& kick)
    : producer_count_(vp_count + 2), interrupts_(interrupts), clock_(clock), kick_(kick) {
  sints_.fill(kHvSintReset);
}

Synic::~Synic() {
  for (auto& source : sources_) source.reset();
  if (region_ != nullptr) ::munmap(region_, region_bytes_);
}

absl::StatusOr<std::unique_ptr<Synic>> Synic::Create(uint32_t vp_count, OverlaySpace& overlays, SintInterrupts& interrupts,
                                                     ReferenceClock& clock, VpKick& kick) {
  if (vp_count == 0 || vp_count >= kMaxQueueSlots) {
    return absl::InvalidArgumentError(absl::StrCat("create SynIC: ", vp_count, " virtual processors"));
  }
  std::unique_ptr<Synic> synic(new Synic(vp_count, interrupts, clock, kick));
  ASSIGN_OR_RETURN(synic->message_page_, overlays.NewPage());
  ASSIGN_OR_RETURN(synic->event_page_, overlays.NewPage());
  RETURN_IF_ERROR(synic->MakeQueues());
  ForEachSint([&](Sint sint) { synic->interrupts_.Configure(sint, kHvSintReset); });
  synic->ConfigureAll();
  return synic;
}

absl::Status Synic::MakeQueues() {
  const QueueShape shape{.producers = producer_count_, .capacity = kQueueCapacity};
  const size_t queue_bytes = (QueueMap::RegionBytes(shape) + kPageBytes - 1) / kPageBytes * kPageBytes;
  region_bytes_ = queue_bytes * Sint::kCount;
  // Pages that nobody posts through are never there.
  void* const region =
      ::mmap(nullptr, region_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (region == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("map ", region_bytes_, " bytes for message queues"));
  region_ = static_cast<std::byte*>(region);
  auto* const slots = reinterpret_cast<HvMessage*>(message_page_->data());
  producers_.reserve(size_t{producer_count_} * Sint::kCount);
  for (unsigned n = 0; n < Sint::kCount; ++n) {
    const std::span<std::byte> bytes(region_ + n * queue_bytes, queue_bytes);
    ASSIGN_OR_RETURN(auto queue, MessageQueue::Create(bytes, shape, doorbell(), n));
    sources_[n] = std::make_unique<Source>(std::move(queue), slots[n], clock_, written_timers_);
    for (uint32_t producer = 0; producer < producer_count_; ++producer) {
      ASSIGN_OR_RETURN(MessageProducer made, MessageProducer::Attach(bytes, shape, producer, doorbell(), n));
      producers_.push_back(made);
    }
  }
  return absl::OkStatus();
}

// --- Any trusted thread -------------------------------------------------------------------------------------------------

HvStatus Synic::Enqueue(Poster poster, Sint sint, const HvMessage& message, bool intercept) noexcept {
  if (poster.number() >= producer_count_) return HvStatus::kInvalidVpIndex;
  MessageProducer& producer = Producer(poster, sint);
  // relaxed: a poster that sees an old value and goes on by itself is stopped by the slot (SlotConfig::vp_only).
  const bool by_vp = (kernel_timer_sints_.load(std::memory_order_relaxed) & Bit(sint)) != 0;
  PostResult result;
  if (by_vp) {
    result = intercept ? producer.TryPostIntercept(message) : producer.TryPost(message);
  } else {
    result = intercept ? producer.TryPostInterceptQuietly(message) : producer.TryPostQuietly(message);
  }
  switch (result) {
    case PostResult::kPosted:
      if (!by_vp) DeliverFromPoster(sint);
      return HvStatus::kSuccess;
    case PostResult::kPostedKick:
      Kick();
      return HvStatus::kSuccess;
    case PostResult::kFull:
      Count(refused_full_);
      return HvStatus::kInsufficientBuffers;
    case PostResult::kMalformed:
      break;
  }
  return HvStatus::kInvalidParameter;
}

HvStatus Synic::Post(Poster poster, Sint sint, const HvMessage& message) noexcept {
  // acquire: pairs with the release in UpdateOn; so does SignalEvent's. Nothing is read that depends on it, but it says what is
  // meant: enabled, as the guest's own order has it.
  if ((on_.load(std::memory_order_acquire) & kMessagesOn) == 0) {
    Count(refused_disabled_);
    return HvStatus::kInvalidSynicState;
  }
  return Enqueue(poster, sint, message, /*intercept=*/false);
}

HvStatus Synic::PostIntercept(Poster poster, Sint sint, const HvMessage& message) noexcept {
  return Enqueue(poster, sint, message, /*intercept=*/true);
}

void Synic::DeliverFromPoster(Sint sint) noexcept {
  const Delivery delivery = sources_[sint.raw()]->slot.TryDeliver();
  if (delivery.interrupt) interrupts_.Raise(sint);
  // seq_cst: we posted, looked, and now load; the VP's thread sets the bit, then looks at the queue. See invariant 3.
  if (delivery.look_again ||
      (delivery.state == SlotState::kBusy && (ring_if_busy_.load(std::memory_order_seq_cst) & Bit(sint)) != 0)) {
    Ring(sint.raw());
  }
  // relaxed: what counts here is what this thread has just written to the slot itself.
  if (written_timers_.load(std::memory_order_relaxed) != 0) Ring(kTimersSource);
}

HvStatus Synic::SignalEvent(Sint sint, uint32_t flag) noexcept {
  if (flag >= kHvEventFlagCount) return HvStatus::kInvalidParameter;
  const uint32_t on = on_.load(std::memory_order_acquire);
  if ((on & kEventsOn) == 0 || (on & Bit(sint)) != 0) {
    Count(refused_disabled_);
    return HvStatus::kInvalidSynicState;
  }
  auto* const words = reinterpret_cast<uint32_t*>(event_page_->data()) + sint.raw() * (kHvEventFlagCount / 32);
  const uint32_t bit = 1u << (flag % 32);
  // seq_cst: what the sender wrote before is visible to the guest that clears the flag, and if it was set the guest's clearing
  // is still to come, so that the guest sees that too. The guest clears with a locked access of its own.
  if ((std::atomic_ref<uint32_t>(words[flag / 32]).fetch_or(bit, std::memory_order_seq_cst) & bit) != 0) {
    Count(events_already_set_);
    return HvStatus::kSuccess;
  }
  Count(events_);
  interrupts_.Raise(sint);
  return HvStatus::kSuccess;
}

void Synic::NotifyLane(Sint sint, uint32_t lane) noexcept {
  if (sources_[sint.raw()]->queue->Notify(lane)) Kick();
}

void Synic::Kick() noexcept {
  Count(kicks_);
  kick_.Kick();
}

void Synic::Ring(unsigned source) noexcept {
  if (doorbell().Ring(source)) Kick();
}

Synic::Stats Synic::stats() const noexcept {
  Stats stats{.messages = {},
              .refused_full = refused_full_.load(std::memory_order_relaxed),
              .refused_disabled = refused_disabled_.load(std::memory_order_relaxed),
              .events = events_.load(std::memory_order_relaxed),
              .events_already_set = events_already_set_.load(std::memory_order_relaxed),
              .kicks = kicks_.load(std::memory_order_relaxed),
              .eoi_watches = eoi_watches_.load(std::memory_order_relaxed),
              .bounded_runs = bounded_runs_.load(std::memory_order_relaxed)};
  for (const auto& source : sources_) {
    const MessageSlot::Stats slot = source->slot.stats();
    stats.messages.written += slot.written;
    stats.messages.no_interrupt += slot.no_interrupt;
    stats.messages.busy += slot.busy;
    stats.messages.off += slot.off;
    stats.messages.elsewhere += slot.elsewhere;
  }
  return stats;
}

// --- The VP's thread ----------------------------------------------------------------------------------------------------

bool Synic::ReadMsr(uint32_t msr, uint64_t& value) noexcept {
  if (!Has(msr)) return false;
  switch (msr) {
    case kHvMsrScontrol:
      value = scontrol_;
      return true;
    case kHvMsrSversion:
      value = kHvSynicVersion;
      return true;
    case kHvMsrSiefp:
      value = siefp_;
      return true;
    case kHvMsrSimp:
      value = simp_;
      return true;
    case kHvMsrEom:
      value = 0;
      return true;
    default:
      value = sints_[msr - kHvMsrSint0];
      return true;
  }
}

bool Synic::WriteMsr(uint32_t msr, uint64_t value) noexcept {
  if (!Has(msr)) return false;
  switch (msr) {
    case kHvMsrScontrol:
      scontrol_ = value;
      ConfigureAll();
      break;
    case kHvMsrSversion:
      return false;
    case kHvMsrSiefp:
      if (!MayPlacePage(*event_page_, siefp_, value)) return false;
      PlacePage(*event_page_, siefp_, value);
      UpdateOn();
      break;
    case kHvMsrSimp:
      if (!MayPlacePage(*message_page_, simp_, value)) return false;
      PlacePage(*message_page_, simp_, value);
      ConfigureAll();
      break;
    case kHvMsrEom:
      OnEom();
      break;
    default:
      if (!IsLegalSint(value)) return false;
      WriteSint(*Sint::From(msr - kHvMsrSint0), value);
      break;
  }
  TellTimers();
  return true;
}

bool Synic::MayPlacePage(const OverlayPage& page, uint64_t reg, uint64_t value) noexcept {
  if ((value & kHvOverlayEnable) == 0 || IsSamePlace(reg, value)) return true;
  return page.MayPlace(Gpfn(value >> kHvOverlayPageShift), OverlayPage::Access::kReadWrite);
}

void Synic::PlacePage(OverlayPage& page, uint64_t& reg, uint64_t value) noexcept {
  const bool same = IsSamePlace(reg, value);
  reg = value;
  if (same) return;
  if ((value & kHvOverlayEnable) == 0) return page.Remove();
  // Outside RAM the page is nowhere, and UpdateOn sees it.
  static_cast<void>(page.Place(Gpfn(value >> kHvOverlayPageShift), OverlayPage::Access::kReadWrite));
}

void Synic::UpdateOn() noexcept {
  uint32_t on = 0;
  if ((scontrol_ & kHvScontrolEnable) != 0) {
    if (message_page_->place().has_value()) on |= kMessagesOn;
    if (event_page_->place().has_value()) on |= kEventsOn;
  }
  uint32_t watchable = 0;
  ForEachSint([&](Sint sint) {
    const uint64_t value = sints_[sint.raw()];
    if ((value & kHvSintMasked) != 0) on |= Bit(sint);
    if ((value & (kHvSintMasked | kHvSintPolling | kHvSintAutoEoi)) == 0) watchable |= Bit(sint);
  });
  // release: see Post.
  on_.store(on, std::memory_order_release);
  watchable_ = watchable;
  // seq_cst: see DeliverFromPoster.
  ring_if_busy_.store(watchable_ & ~watched_, std::memory_order_seq_cst);
}

void Synic::WriteSint(Sint sint, uint64_t value) noexcept {
  // A watch is of the vector that there was.
  if ((watched_ & Bit(sint)) != 0) Watch(sint, false);
  sints_[sint.raw()] = value;
  // First: whoever then delivers raises the vector that the guest has just named.
  interrupts_.Configure(sint, value);
  UpdateOn();
  Configure(sint);
}

void Synic::ConfigureAll() noexcept {
  UpdateOn();
  ForEachSint([&](Sint sint) { Configure(sint); });
}

void Synic::Configure(Sint sint) noexcept {
  Source& source = *sources_[sint.raw()];
  const bool kernel_timer = (kernel_timer_sints_.load(std::memory_order_relaxed) & Bit(sint)) != 0;
  const SlotConfig config{
      .memory = accepts_messages() ? &source.memory : nullptr,
      .interrupts = (sints_[sint.raw()] & (kHvSintMasked | kHvSintPolling)) == 0,
      .paused = paused_,
      .vp_only = kernel_timer,
      .always_pending = kernel_timer,
  };
  Delivery delivery = source.slot.TryConfigure(config);
  // A poster is in the middle of one delivery: it has at most a few messages to copy, and the guest has no part in that. The
  // only place where anybody waits; configuration is rare.
  while (delivery.state == SlotState::kElsewhere) {
    __builtin_ia32_pause();
    delivery = source.slot.TryConfigure(config);
  }
  if (delivery.interrupt) interrupts_.Raise(sint);
  Look(sint);
}

void Synic::Watch(Sint sint, bool watched) noexcept {
  if (watched) Count(eoi_watches_);
  interrupts_.WatchEoi(sint, watched);
  watched_ = watched ? watched_ | Bit(sint) : watched_ & ~Bit(sint);
  // seq_cst: see DeliverFromPoster.
  ring_if_busy_.store(watchable_ & ~watched_, std::memory_order_seq_cst);
}

void Synic::Look(Sint sint) noexcept {
  MessageSlot& slot = sources_[sint.raw()]->slot;
  for (int look = 0; look < kLooks; ++look) {
    const Delivery delivery = slot.TryDeliver(MessageSlot::Caller::kVpThread);
    if (delivery.interrupt) interrupts_.Raise(sint);
    if (delivery.look_again) return Ring(sint.raw());
    const bool watched = (watched_ & Bit(sint)) != 0;
    switch (delivery.state) {
      case SlotState::kElsewhere:  // the poster looks for us, and rings if that leaves something to do
      case SlotState::kNotOurs:
        return;
      case SlotState::kWritten:
        break;  // another may wait, and then the slot is busy
      case SlotState::kBusy:
        if (watched || (watchable_ & Bit(sint)) == 0) return;
        Watch(sint, true);
        break;  // the slot may have become free just before
      case SlotState::kIdle:
      case SlotState::kOff:
        if (!watched) return;
        Watch(sint, false);
        break;  // a poster may have found it busy, and watched, just before
    }
  }
  // Others post and read as fast as we look.
  Ring(sint.raw());
}

void Synic::TellTimers() noexcept {
  // relaxed: what another thread wrote it rings for.
  if (timers_ != nullptr && written_timers_.load(std::memory_order_relaxed) != 0) timers_->OnTimerMessagesWritten();
}

void Synic::RunPending() noexcept {
  for (int round = 0; round < kRounds; ++round) {
    uint64_t rang = doorbell().Take();
    while (rang != 0) {
      if (const std::optional<Sint> sint = Sint::From(static_cast<unsigned>(std::countr_zero(rang)))) Look(*sint);
      rang &= rang - 1;
    }
    TellTimers();
    if (doorbell().Arm()) return;
  }
  // Not armed, so nobody else would kick. The guest gets its turn all the same.
  Count(bounded_runs_);
  Kick();
}

void Synic::OnEom() noexcept {
  ForEachSint([&](Sint sint) { Look(sint); });
  TellTimers();
}

void Synic::OnEoi(Sint sint) noexcept {
  const uint64_t vector = sints_[sint.raw()] & kHvSintVectorMask;
  ForEachSint([&](Sint other) {
    if ((sints_[other.raw()] & kHvSintVectorMask) == vector) Look(other);
  });
  TellTimers();
}

void Synic::SetKernelTimerSints(uint16_t sints) noexcept {
  const uint32_t changed = kernel_timer_sints_.load(std::memory_order_relaxed) ^ sints;
  kernel_timer_sints_.store(sints, std::memory_order_relaxed);
  ForEachSint([&](Sint sint) {
    if ((changed & Bit(sint)) != 0) Configure(sint);
  });
  TellTimers();
}

void Synic::SetPaused(bool paused) noexcept {
  paused_ = paused;
  ForEachSint([&](Sint sint) { Configure(sint); });
  TellTimers();
}

absl::StatusOr<uint32_t> Synic::AttachLane(Sint sint, LaneConsumer lane) {
  return sources_[sint.raw()]->queue->AttachLane(lane);
}

void Synic::PostTimer(uint32_t timer, Sint sint, HvTicks expiration) noexcept {
  const HvTimerMessagePayload payload{
      .timer_index = timer, .reserved = 0, .expiration_time = expiration.raw(), .delivery_time = 0};
  HvMessage message{};
  message.header.type = HvMessageType::kTimerExpired;
  message.header.payload_size = sizeof(payload);
  std::memcpy(message.payload, &payload, sizeof(payload));
  // Never full: invariant 4.
  static_cast<void>(Producer(Poster::Timers(), sint).TryPostQuietly(message));
  Look(sint);
}

uint32_t Synic::TakeWrittenTimers() noexcept {
  // The load spares the common case, nothing, a locked access. acquire: pairs with Slot::Write.
  if (written_timers_.load(std::memory_order_relaxed) == 0) return 0;
  return written_timers_.exchange(0, std::memory_order_acquire);
}

MessageProducer& Synic::Producer(Poster poster, Sint sint) noexcept {
  return producers_[size_t{sint.raw()} * producer_count_ + poster.number()];
}

// --- State --------------------------------------------------------------------------------------------------------------

SynicState Synic::SaveState() {
  SynicState state{.scontrol = scontrol_, .siefp = siefp_, .simp = simp_, .sints = sints_};
  std::memcpy(state.message_page.data(), message_page_->data(), kPageBytes);
  std::memcpy(state.event_page.data(), event_page_->data(), kPageBytes);
  ForEachSint([&](Sint sint) {
    MessageQueue& queue = *sources_[sint.raw()]->queue;
    state.queued[sint.raw()] = queue.TakeAll();
    if (queue.Restore(state.queued[sint.raw()])) Kick();
  });
  return state;
}

absl::Status Synic::RestoreState(const SynicState& state) {
  for (unsigned n = 0; n < Sint::kCount; ++n) {
    if (!IsLegalSint(state.sints[n])) {
      return absl::InvalidArgumentError(absl::StrCat("restore SynIC: SINT", n, " is ", absl::Hex(state.sints[n])));
    }
    for (const HvMessage& message : state.queued[n]) {
      if (message.header.type == HvMessageType::kNone || message.header.payload_size > kHvMessagePayloadBytes) {
        return absl::InvalidArgumentError(absl::StrCat("restore SynIC: a message for SINT", n, " of type ",
                                                       static_cast<uint32_t>(message.header.type), " and size ",
                                                       message.header.payload_size));
      }
    }
  }
  std::memcpy(message_page_->data(), state.message_page.data(), kPageBytes);
  std::memcpy(event_page_->data(), state.event_page.data(), kPageBytes);
  for (unsigned n = 0; n < Sint::kCount; ++n) {
    if (sources_[n]->queue->Restore(state.queued[n])) Kick();
  }
  scontrol_ = state.scontrol;
  PlacePage(*message_page_, simp_, state.simp);
  PlacePage(*event_page_, siefp_, state.siefp);
  ForEachSint([&](Sint sint) { WriteSint(sint, state.sints[sint.raw()]); });
  TellTimers();
  return absl::OkStatus();
}

}  // namespace vmm
