#include "vcpu/local_apic/local_apic.h"

#include <algorithm>

#include "devices/hyperv/hv_msr_layout.h"

namespace vmm {
namespace {

constexpr uint32_t kPublishedModeMask = 3;
constexpr uint32_t kPublishedSoftwareEnabled = 1u << 2;
constexpr unsigned kPublishedModelShift = 3;
constexpr uint32_t kPublishedModelMask = 3;
constexpr unsigned kPublishedLogicalIdShift = 8;

constexpr uint8_t kNothingDeliverable = 15;  // a priority class that no vector is above

// Both modes' registers that are there to be written, but for those with a rule of their own.
constexpr bool IsLvt(ApicRegister number) { return number >= ApicRegister::kLvtTimer && number <= ApicRegister::kLvtError; }
constexpr bool IsBitmap(uint8_t number) {
  return number >= static_cast<uint8_t>(ApicRegister::kIsr0) && number < static_cast<uint8_t>(ApicRegister::kIrr0) + 8;
}

}  // namespace

LocalApic::LocalApic(const Options& options, ApicBus& bus, ApicClock& clock, ApicDeadline& deadline, VpKick& kick) noexcept
    : options_(options),
      page_mask_(((uint64_t{1} << std::min(options.physical_address_bits, 52u)) - 1) & ~uint64_t{kApicPageBytes - 1}),
      bus_(bus),
      kick_(kick),
      timer_(clock, deadline, options.minimum_period_ticks) {
  Reset();
}

// --- Any thread ---

void LocalApic::Kick(bool wanted) noexcept {
  if (!wanted) return;
  Count(kicks_);
  kick_.Kick();
}

void LocalApic::Post(ApicDeliveryMode mode, uint8_t vector, bool level) noexcept {
  const uint32_t published = published_.load(std::memory_order_acquire);
  if ((published & kPublishedModeMask) == static_cast<uint32_t>(Mode::kDisabled)) return Count(dropped_);
  switch (mode) {
    case ApicDeliveryMode::kFixed:
    case ApicDeliveryMode::kLowestPriority:
      if ((published & kPublishedSoftwareEnabled) == 0) return Count(dropped_);
      if (vector >= kApicFirstVector) {
        Count(posted_);
        return Kick(inbox_.Post(vector, level));
      }
      // Told once till ESR is written: a sender cannot make this processor come out for each.
      if ((errors_.fetch_or(kEsrReceiveIllegalVector, std::memory_order_relaxed) & kEsrReceiveIllegalVector) != 0) return;
      return Kick(inbox_.PostEvent(InterruptInbox::kError));
    case ApicDeliveryMode::kSmi:
      return Kick(inbox_.PostEvent(InterruptInbox::kSmi));
    case ApicDeliveryMode::kNmi:
      return Kick(inbox_.PostEvent(InterruptInbox::kNmi));
    case ApicDeliveryMode::kInit:
      return Kick(inbox_.PostInit());
    case ApicDeliveryMode::kStartup:
      return Kick(inbox_.PostStartup(vector));
    case ApicDeliveryMode::kExtInt:
      return Kick(inbox_.PostEvent(InterruptInbox::kExtInt));
    case ApicDeliveryMode::kRemoteRead:
      break;
  }
  Count(dropped_);
}

void LocalApic::PostLint(unsigned pin) noexcept {
  Kick(inbox_.PostEvent(pin == 0 ? InterruptInbox::kLint0 : InterruptInbox::kLint1));
}

bool LocalApic::receives_fixed() const noexcept {
  const uint32_t published = published_.load(std::memory_order_acquire);
  return (published & kPublishedModeMask) != static_cast<uint32_t>(Mode::kDisabled) &&
         (published & kPublishedSoftwareEnabled) != 0;
}

bool LocalApic::Matches(const ApicDestination& destination) const noexcept {
  const uint32_t published = published_.load(std::memory_order_acquire);
  const auto mode = static_cast<Mode>(published & kPublishedModeMask);
  if (mode == Mode::kDisabled) return false;
  if (destination.is_broadcast) return true;
  const uint32_t number = destination.number;
  if (!destination.is_logical) return number == (mode == Mode::kXapic ? options_.id & 0xff : options_.id);
  if (mode == Mode::kX2apic) {
    const uint32_t own = LogicalId();
    return number >> 16 == own >> 16 && (number & own & 0xffff) != 0;
  }
  const uint32_t own = published >> kPublishedLogicalIdShift;
  if (number > 0xff) return false;
  switch (static_cast<Model>(published >> kPublishedModelShift & kPublishedModelMask)) {
    case Model::kFlat:
      return (number & own) != 0;
    case Model::kCluster:
      return number >> 4 == own >> 4 && (number & own & 0xf) != 0;
    case Model::kReserved:
      break;
  }
  return false;
}

LocalApic::Stats LocalApic::stats() const noexcept {
  const auto get = [](const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); };
  return {.posted = get(posted_), .dropped = get(dropped_), .kicks = get(kicks_), .accepted = get(accepted_),
          .sent = get(sent_), .invalid_sends = get(invalid_sends_), .invalid_accesses = get(invalid_accesses_)};
}

// --- Interrupts ---

// A cluster of 16 by its number, and a bit in it.
uint32_t LocalApic::LogicalId() const noexcept { return options_.id >> 4 << 16 | 1u << (options_.id & 0xf); }

void LocalApic::Publish() noexcept {
  Model model = Model::kReserved;
  if (dfr_ >> 28 == kDfrFlat) model = Model::kFlat;
  if (dfr_ >> 28 == kDfrCluster) model = Model::kCluster;
  const uint32_t published = static_cast<uint32_t>(mode()) | ((svr_ & kSvrEnabled) != 0 ? kPublishedSoftwareEnabled : 0) |
                             static_cast<uint32_t>(model) << kPublishedModelShift |
                             ldr_ >> kXapicIdShift << kPublishedLogicalIdShift;
  published_.store(published, std::memory_order_release);
}

void LocalApic::UpdatePriority() noexcept {
  const uint8_t in_service = static_cast<uint8_t>(isr_.Highest().value_or(0) >> 4);
  const uint8_t own = mode() == Mode::kDisabled ? kNothingDeliverable : std::max(static_cast<uint8_t>(tpr_ >> 4), in_service);
  priority_class_.store(own, std::memory_order_relaxed);
}

void LocalApic::Accept(uint8_t vector) noexcept {
  Count(accepted_);
  inbox_.TakeVector(vector);
  if (auto_eoi_.Has(vector)) return;
  isr_.Set(vector);
  UpdatePriority();
}

void LocalApic::Eoi() noexcept {
  const std::optional<uint8_t> vector = isr_.Highest();
  if (!vector) return;
  isr_.Clear(*vector);
  UpdatePriority();
  if (inbox_.IsLevel(*vector)) {
    uint32_t& lint0 = Lvt(ApicRegister::kLvtLint0);
    if ((lint0 & kLvtVectorMask) == *vector) lint0 &= ~kLvtRemoteIrr;
    if ((svr_ & kSvrSuppressEoi) == 0) bus_.BroadcastEoi(*vector);
  }
  // Last: the observer may raise interrupts here.
  if (observer_ != nullptr && watched_.Has(*vector)) observer_->OnEoi(*vector);
}

bool LocalApic::TakeInit() noexcept {
  // What came with it is of before, less a SIPI, which would have gone.
  constexpr uint32_t kAll = InterruptInbox::kNmi | InterruptInbox::kSmi | InterruptInbox::kInit | InterruptInbox::kExtInt |
                            InterruptInbox::kLint0 | InterruptInbox::kLint1 | InterruptInbox::kError;
  if ((inbox_.events() & InterruptInbox::kInit) == 0) return false;
  inbox_.TakeEvents(kAll);
  ResetRegisters();
  return true;
}

void LocalApic::Reset() noexcept {
  inbox_.TakeEvents(~uint32_t{0});
  base_ = kApicDefaultPage | kApicBaseEnabled | (options_.is_bsp ? kApicBaseBsp : 0);
  ResetRegisters();
}

// IA32_APIC_BASE, and so the mode, stays.
void LocalApic::ResetRegisters() noexcept {
  tpr_ = 0;
  svr_ = kSvrReset;
  ldr_ = 0;
  dfr_ = kDfrReset;
  esr_ = 0;
  icr_low_ = 0;
  icr_high_ = 0;
  lvt_.fill(kLvtMasked);
  error_interrupt_sent_ = false;
  isr_ = {};
  timer_.Reset();
  // Not received from here on; what a poster has in hand arrives as if it were a moment later.
  Publish();
  inbox_.ClearVectors();
  errors_.store(0, std::memory_order_relaxed);
  UpdatePriority();
}

void LocalApic::RunPending() noexcept {
  const uint32_t events = inbox_.TakeEvents(InterruptInbox::kError | InterruptInbox::kLint0 | InterruptInbox::kLint1);
  if (events == 0) return;
  // None: ESR has been written since, and shows it.
  if ((events & InterruptInbox::kError) != 0 && errors_.load(std::memory_order_relaxed) != 0) RaiseErrorInterrupt();
  if ((events & InterruptInbox::kLint0) != 0) RaiseLocal(ApicRegister::kLvtLint0);
  if ((events & InterruptInbox::kLint1) != 0) RaiseLocal(ApicRegister::kLvtLint1);
}

void LocalApic::RaiseOwn(uint8_t vector, bool level) noexcept {
  if (vector < kApicFirstVector) return RecordError(kEsrReceiveIllegalVector);
  Count(posted_);
  inbox_.SetPending(vector, level);
}

bool LocalApic::RaiseLocal(ApicRegister entry) noexcept {
  uint32_t& lvt = Lvt(entry);
  if (mode() == Mode::kDisabled || (lvt & kLvtMasked) != 0) return false;
  const auto vector = static_cast<uint8_t>(lvt & kLvtVectorMask);
  const auto delivery = static_cast<ApicDeliveryMode>((lvt & kLvtModeMask) >> kLvtModeShift);
  const bool is_pin = entry == ApicRegister::kLvtLint0 || entry == ApicRegister::kLvtLint1;
  const bool level = entry == ApicRegister::kLvtLint0 && (lvt & kLvtLevel) != 0;  // LINT1 is an edge always
  switch (delivery) {
    case ApicDeliveryMode::kFixed:
      if (level) {
        if ((lvt & kLvtRemoteIrr) != 0) return true;
        if (vector >= kApicFirstVector) lvt |= kLvtRemoteIrr;
      }
      RaiseOwn(vector, level);
      return true;
    // The VP's own thread is awake: what these answer is for others.
    case ApicDeliveryMode::kSmi:
      static_cast<void>(inbox_.PostEvent(InterruptInbox::kSmi));
      return true;
    case ApicDeliveryMode::kNmi:
      static_cast<void>(inbox_.PostEvent(InterruptInbox::kNmi));
      return true;
    case ApicDeliveryMode::kInit:
      if (is_pin) static_cast<void>(inbox_.PostInit());
      return true;
    case ApicDeliveryMode::kExtInt:
      if (is_pin) static_cast<void>(inbox_.PostEvent(InterruptInbox::kExtInt));
      return true;
    case ApicDeliveryMode::kLowestPriority:
    case ApicDeliveryMode::kRemoteRead:
    case ApicDeliveryMode::kStartup:
      break;
  }
  return true;
}

void LocalApic::RaisePerformance() noexcept {
  if (RaiseLocal(ApicRegister::kLvtPerformance)) Lvt(ApicRegister::kLvtPerformance) |= kLvtMasked;
}

void LocalApic::RecordError(uint32_t error) noexcept {
  errors_.fetch_or(error, std::memory_order_relaxed);
  RaiseErrorInterrupt();
}

void LocalApic::RaiseErrorInterrupt() noexcept {
  if (error_interrupt_sent_ || (Lvt(ApicRegister::kLvtError) & kLvtMasked) != 0) return;
  error_interrupt_sent_ = true;  // first: an illegal vector in the entry itself is an error, too
  RaiseLocal(ApicRegister::kLvtError);
}

// --- The timer ---

void LocalApic::ConfigureTimer() noexcept {
  const uint32_t lvt = Lvt(ApicRegister::kLvtTimer);
  timer_.Configure(static_cast<ApicTimer::Mode>(lvt >> kLvtTimerModeShift & 3), (lvt & kLvtMasked) != 0);
}

void LocalApic::RunTimer() noexcept {
  if (timer_.TakeFired()) RaiseLocal(ApicRegister::kLvtTimer);
}

void LocalApic::OnDeadline() noexcept {
  timer_.ForgetDeadline();
  RunTimer();
}

// --- Registers ---

uint32_t LocalApic::LvtWritable(ApicRegister entry) const noexcept {
  constexpr uint32_t kAlways = kLvtVectorMask | kLvtMasked;
  switch (entry) {
    case ApicRegister::kLvtTimer:
      return kAlways | kLvtTimerPeriodic | (options_.has_tsc_deadline ? kLvtTimerTscDeadline : 0);
    case ApicRegister::kLvtThermal:
    case ApicRegister::kLvtPerformance:
      return kAlways | kLvtModeMask;
    case ApicRegister::kLvtLint0:
    case ApicRegister::kLvtLint1:
      return kAlways | kLvtModeMask | kLvtPolarity | kLvtLevel;
    default:
      return kAlways;
  }
}

uint32_t LocalApic::SvrWritable() const noexcept {
  return kSvrWritable | (options_.suppresses_eoi_broadcasts ? kSvrSuppressEoi : 0);
}

std::optional<uint32_t> LocalApic::Read(uint8_t number) noexcept {
  if (IsBitmap(number)) {
    const unsigned part = number % 8;
    if (number < static_cast<uint8_t>(ApicRegister::kTmr0)) return isr_.Part(part);
    return number < static_cast<uint8_t>(ApicRegister::kIrr0) ? inbox_.TmrPart(part) : inbox_.IrrPart(part);
  }
  const bool is_x2apic = mode() == Mode::kX2apic;
  const auto reg = static_cast<ApicRegister>(number);
  switch (reg) {
    case ApicRegister::kId:
      return is_x2apic ? options_.id : options_.id << kXapicIdShift;
    case ApicRegister::kVersion:
      return kApicVersion | (options_.suppresses_eoi_broadcasts ? kApicVersionSuppressesEoi : 0);
    case ApicRegister::kTpr:
      return tpr_;
    case ApicRegister::kPpr: {
      // The sub-class is TPR's where TPR decides.
      const uint32_t in_service = isr_.Highest().value_or(0) & 0xf0;
      return (tpr_ & 0xf0) >= in_service ? tpr_ : in_service;
    }
    case ApicRegister::kEoi:
      return 0;
    case ApicRegister::kLdr:
      return is_x2apic ? LogicalId() : ldr_;
    case ApicRegister::kDfr:
      return dfr_;
    case ApicRegister::kSvr:
      return svr_;
    case ApicRegister::kEsr:
      return esr_;
    case ApicRegister::kIcrLow:
      return icr_low_;
    case ApicRegister::kIcrHigh:
      return icr_high_;
    case ApicRegister::kLvtTimer:
    case ApicRegister::kLvtThermal:
    case ApicRegister::kLvtPerformance:
    case ApicRegister::kLvtLint0:
    case ApicRegister::kLvtLint1:
    case ApicRegister::kLvtError:
      return Lvt(reg);
    case ApicRegister::kInitialCount:
      return timer_.initial_count();
    case ApicRegister::kCurrentCount:
      RunTimer();  // a count of 0 is not seen before its interrupt is pending
      return timer_.ReadCurrentCount();
    case ApicRegister::kDivide:
      return timer_.divide();
    default:
      return std::nullopt;
  }
}

bool LocalApic::Write(uint8_t number, uint32_t value) noexcept {
  const auto reg = static_cast<ApicRegister>(number);
  switch (reg) {
    case ApicRegister::kTpr:
      tpr_ = value & 0xff;
      UpdatePriority();
      return true;
    case ApicRegister::kEoi:
      Eoi();
      return true;
    case ApicRegister::kLdr:
      ldr_ = value & 0xffu << kXapicIdShift;
      Publish();
      return true;
    case ApicRegister::kDfr:
      dfr_ = value | ~kDfrModelMask;
      Publish();
      return true;
    case ApicRegister::kSvr:
      WriteSvr(value);
      return true;
    case ApicRegister::kEsr:
      // A poster's error from here on tells again.
      esr_ = errors_.exchange(0, std::memory_order_relaxed);
      error_interrupt_sent_ = false;
      return true;
    case ApicRegister::kIcrLow:
      WriteIcr(value, icr_high_);
      return true;
    case ApicRegister::kIcrHigh:
      icr_high_ = value & 0xffu << kXapicIdShift;
      return true;
    case ApicRegister::kLvtTimer:
    case ApicRegister::kLvtThermal:
    case ApicRegister::kLvtPerformance:
    case ApicRegister::kLvtLint0:
    case ApicRegister::kLvtLint1:
    case ApicRegister::kLvtError:
      WriteLvt(reg, value);
      return true;
    case ApicRegister::kInitialCount:
      RunTimer();
      timer_.WriteInitialCount(value);
      return true;
    case ApicRegister::kDivide:
      RunTimer();
      timer_.WriteDivide(value);
      return true;
    default:
      // Read-only, or none.
      return IsBitmap(number) || reg == ApicRegister::kId || reg == ApicRegister::kVersion || reg == ApicRegister::kPpr ||
             reg == ApicRegister::kCurrentCount;
  }
}

void LocalApic::WriteSvr(uint32_t value) noexcept {
  svr_ = value & SvrWritable();
  if ((svr_ & kSvrEnabled) == 0) {
    RunTimer();
    for (uint32_t& lvt : lvt_) lvt |= kLvtMasked;
    ConfigureTimer();
  }
  Publish();
}

void LocalApic::WriteLvt(ApicRegister entry, uint32_t value) noexcept {
  if (entry == ApicRegister::kLvtTimer) RunTimer();
  uint32_t& lvt = Lvt(entry);
  // Remote IRR waits for the EOI of this vector as a level; of another it would not end.
  constexpr uint32_t kSameInterrupt = kLvtVectorMask | kLvtModeMask | kLvtLevel;
  const uint32_t remote_irr = ((lvt ^ value) & kSameInterrupt) == 0 ? lvt & kLvtRemoteIrr : 0;
  lvt = (value & LvtWritable(entry)) | remote_irr;
  if ((svr_ & kSvrEnabled) == 0) lvt |= kLvtMasked;
  if (entry == ApicRegister::kLvtTimer) ConfigureTimer();
}

void LocalApic::WriteIcr(uint32_t low, uint32_t high) noexcept {
  icr_low_ = low & ~kIcrReserved & ~kIcrDeliveryStatus;
  icr_high_ = high;
  Send(low, high);
}

void LocalApic::Send(uint32_t low, uint32_t high) noexcept {
  const bool is_x2apic = mode() == Mode::kX2apic;
  const auto delivery = static_cast<ApicDeliveryMode>(low >> kIcrModeShift & 7);
  const auto shorthand = static_cast<IcrShorthand>(low >> kIcrShorthandShift & 3);
  const auto vector = static_cast<uint8_t>(low & kIcrVectorMask);

  bool means_something = true;
  switch (delivery) {
    case ApicDeliveryMode::kFixed:
      break;
    case ApicDeliveryMode::kInit:
      if ((low & kIcrLevel) != 0 && (low & kIcrAssert) == 0) means_something = false;
      [[fallthrough]];
    case ApicDeliveryMode::kLowestPriority:
    case ApicDeliveryMode::kSmi:
    case ApicDeliveryMode::kNmi:
    case ApicDeliveryMode::kStartup:
      if (shorthand == IcrShorthand::kSelf || shorthand == IcrShorthand::kAll) means_something = false;
      break;
    case ApicDeliveryMode::kRemoteRead:
    case ApicDeliveryMode::kExtInt:
      means_something = false;
      break;
  }
  if (!means_something) return Count(invalid_sends_);

  Count(sent_);
  const bool has_vector = delivery == ApicDeliveryMode::kFixed || delivery == ApicDeliveryMode::kLowestPriority;
  if (has_vector && vector < kApicFirstVector) RecordError(kEsrSendIllegalVector);
  if (shorthand == IcrShorthand::kSelf) {
    if ((svr_ & kSvrEnabled) == 0) return Count(dropped_);
    return RaiseOwn(vector, /*level=*/false);
  }
  ApicMessage message{.mode = delivery, .vector = vector, .sender = options_.id};
  if (shorthand == IcrShorthand::kNone) {
    const uint32_t number = is_x2apic ? high : high >> kXapicIdShift;
    message.destination = ApicDestination::From(number, (low & kIcrLogical) != 0, is_x2apic);
  } else {
    message.destination = {.is_broadcast = true};
    message.but_sender = shorthand == IcrShorthand::kAllButSelf;
  }
  bus_.Send(message);
}

void LocalApic::SyncCr8(uint64_t cr8) noexcept {
  if (cr8 == tpr_ >> 4) return;
  tpr_ = static_cast<uint32_t>(cr8 & 0xf) << 4;
  UpdatePriority();
}

// --- The xAPIC page ---

void LocalApic::ReadMmio(uint64_t gpa, std::span<uint8_t> data) noexcept {
  const uint32_t offset = gpa % kApicPageBytes;
  std::fill(data.begin(), data.end(), uint8_t{0});
  const std::optional<uint32_t> value = offset >> 4 < kApicRegisterCount ? Read(static_cast<uint8_t>(offset >> 4)) : std::nullopt;
  if (!value) {
    Count(invalid_accesses_);
    return RecordError(kEsrIllegalRegister);
  }
  const uint32_t first = offset % 16;
  for (uint32_t n = 0; n < data.size() && first + n < 4; ++n) data[n] = static_cast<uint8_t>(*value >> 8 * (first + n));
}

void LocalApic::WriteMmio(uint64_t gpa, std::span<const uint8_t> data) noexcept {
  const uint32_t offset = gpa % kApicPageBytes;
  if (data.size() != 4 || offset % 16 != 0) return Count(invalid_accesses_);
  const uint32_t value = data[0] | data[1] << 8 | data[2] << 16 | uint32_t{data[3]} << 24;
  if (offset >> 4 < kApicRegisterCount && Write(static_cast<uint8_t>(offset >> 4), value)) return;
  Count(invalid_accesses_);
  RecordError(kEsrIllegalRegister);
}

// --- MSRs ---

bool LocalApic::Has(uint32_t msr) noexcept {
  return msr == kMsrApicBase || msr == kMsrTscDeadline || msr - kMsrX2apicFirst < kMsrX2apicCount || msr == kHvMsrEoi ||
         msr == kHvMsrIcr || msr == kHvMsrTpr;
}

bool LocalApic::ReadMsr(uint32_t msr, uint64_t& value) noexcept {
  switch (msr) {
    case kMsrApicBase:
      value = base_;
      return true;
    case kMsrTscDeadline:
      if (!options_.has_tsc_deadline) return false;
      RunTimer();  // what has passed reads as 0
      value = timer_.tsc_deadline();
      return true;
    case kHvMsrIcr:
      if (mode() == Mode::kDisabled) return false;
      value = uint64_t{icr_high_} << 32 | icr_low_;
      return true;
    case kHvMsrTpr:
      if (mode() == Mode::kDisabled) return false;
      value = tpr_;
      return true;
    default:
      if (msr - kMsrX2apicFirst >= kMsrX2apicCount || mode() != Mode::kX2apic) return false;
      return ReadX2apic(static_cast<uint8_t>(msr - kMsrX2apicFirst), value);
  }
}

bool LocalApic::WriteMsr(uint32_t msr, uint64_t value) noexcept {
  switch (msr) {
    case kMsrApicBase:
      return WriteBase(value);
    case kMsrTscDeadline:
      if (!options_.has_tsc_deadline) return false;
      RunTimer();
      timer_.WriteTscDeadline(value);
      RunTimer();  // one that has passed already
      return true;
    case kHvMsrEoi:
      if (mode() == Mode::kDisabled || value >> 32 != 0) return false;
      Eoi();
      return true;
    case kHvMsrIcr:
      if (mode() == Mode::kDisabled) return false;
      // The page's format: in xAPIC mode eight bits of destination, what is reserved is dropped.
      WriteIcr(static_cast<uint32_t>(value),
               static_cast<uint32_t>(value >> 32) & (mode() == Mode::kX2apic ? ~0u : 0xffu << kXapicIdShift));
      return true;
    case kHvMsrTpr:
      if (mode() == Mode::kDisabled || value >> 8 != 0) return false;
      return Write(static_cast<uint8_t>(ApicRegister::kTpr), static_cast<uint32_t>(value));
    default:
      if (msr - kMsrX2apicFirst >= kMsrX2apicCount || mode() != Mode::kX2apic) return false;
      return WriteX2apic(static_cast<uint8_t>(msr - kMsrX2apicFirst), value);
  }
}

bool LocalApic::ReadX2apic(uint8_t number, uint64_t& value) noexcept {
  switch (static_cast<ApicRegister>(number)) {
    case ApicRegister::kEoi:
    case ApicRegister::kSelfIpi:
    case ApicRegister::kDfr:
    case ApicRegister::kIcrHigh:
      return false;
    case ApicRegister::kIcrLow:
      value = uint64_t{icr_high_} << 32 | icr_low_;
      return true;
    default:
      break;
  }
  if (number >= kApicRegisterCount) return false;
  const std::optional<uint32_t> read = Read(number);
  if (read) value = *read;
  return read.has_value();
}

bool LocalApic::WriteX2apic(uint8_t number, uint64_t value) noexcept {
  const auto reg = static_cast<ApicRegister>(number);
  const auto low = static_cast<uint32_t>(value);
  if (reg == ApicRegister::kIcrLow) {
    if ((low & kIcrReserved) != 0) return false;
    WriteIcr(low, static_cast<uint32_t>(value >> 32));
    return true;
  }
  uint64_t writable = 0;
  switch (reg) {
    case ApicRegister::kEoi:
    case ApicRegister::kEsr:
      break;
    case ApicRegister::kTpr:
    case ApicRegister::kSelfIpi:
      writable = 0xff;
      break;
    case ApicRegister::kSvr:
      writable = SvrWritable();
      break;
    case ApicRegister::kInitialCount:
      writable = 0xffff'ffff;
      break;
    case ApicRegister::kDivide:
      writable = kDivideWritable;
      break;
    default:
      if (!IsLvt(reg)) return false;  // read-only, xAPIC's, or none
      writable = LvtWritable(reg) | kLvtDeliveryStatus;
      // Read-only bits may be written back.
      if (reg == ApicRegister::kLvtLint0 || reg == ApicRegister::kLvtLint1) writable |= kLvtRemoteIrr;
      break;
  }
  if ((value & ~writable) != 0) return false;
  if (reg == ApicRegister::kSelfIpi) {
    Send(low | static_cast<uint32_t>(IcrShorthand::kSelf) << kIcrShorthandShift, 0);  // ICR stays
    return true;
  }
  return Write(number, low);
}

bool LocalApic::WriteBase(uint64_t value) noexcept {
  const uint64_t allowed = page_mask_ | kApicBaseBsp | kApicBaseEnabled | (options_.has_x2apic ? kApicBaseX2apic : 0);
  if ((value & ~allowed) != 0) return false;
  const Mode from = mode();
  const bool enabled = (value & kApicBaseEnabled) != 0;
  const bool x2apic = (value & kApicBaseX2apic) != 0;
  if (x2apic && (!enabled || from == Mode::kDisabled)) return false;
  if (from == Mode::kX2apic && enabled && !x2apic) return false;
  base_ = value;
  if (mode() == from) return true;
  if (mode() == Mode::kX2apic) {
    icr_high_ = 0;
    Publish();
  } else {
    // Off, or on again: as after power-up.
    ResetRegisters();
  }
  return true;
}

}  // namespace vmm
