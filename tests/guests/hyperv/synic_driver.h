// The guest's side of the SynIC: hypercalls, the test device's connections, the pages of each processor, messages that say whose
// they are, and who writes down what arrives.
//
// Shapes   Fresh() first in each test: every processor has its SynIC on, both pages empty, all sources masked, no timers.
// Units    reference time in ticks of 100 ns.
// Threads  MSRs of the SynIC are the processor's own: SetSint, WriteEom, SetTimer and Fresh's parts work on the one that calls.
//          Slots and flags are memory: any processor.
// Errors   what a hypercall answers; a drain that does not end ends the guest.
// Source   Hyper-V TLFS, "Inter-Partition Communication", "Timers".
#ifndef VMM_TESTS_GUESTS_HYPERV_SYNIC_DRIVER_H_
#define VMM_TESTS_GUESTS_HYPERV_SYNIC_DRIVER_H_

#include <cstddef>
#include <cstdint>

#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "tests/guests/hyperv/marked_message.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/random.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/tally.h"

namespace guest {

using vmm::HvMessage;
using vmm::HvMessageType;
using vmm::HvStatus;

inline constexpr uint32_t kMaxSynicCpus = 8;
inline constexpr uint32_t kSints = vmm::kHvSintCount;
inline constexpr uint64_t kMillisecond = 10'000;  // ticks of reference time
inline constexpr uint32_t kTimerExpired = static_cast<uint32_t>(HvMessageType::kTimerExpired);
// "Something that must not happen has had its time": some milliseconds.
inline constexpr uint64_t kQuietTicks = 6'000'000;

// --- Hypercalls and connections -----------------------------------------------------------------------------------------

void EnableHypercalls();
// The status in the result value.
HvStatus Hypercall(uint64_t input, uint64_t rdx, uint64_t r8);
// As the caller has it: nothing is checked here. `bytes` of `payload` are copied, `claimed` is what the input says.
HvStatus PostRaw(uint32_t connection, uint32_t type, const void* payload, uint32_t bytes, uint32_t claimed);
HvStatus Post(uint32_t connection, uint32_t type, const void* payload, uint32_t bytes);
HvStatus SignalEvent(uint32_t connection, uint16_t flag = 0);       // fast
HvStatus SignalEventSlowly(uint32_t connection, uint16_t flag = 0);  // from memory

enum class DeviceCommand : uint32_t {
  kRaiseSint = 3,
  kCreateMessageConnection = 4,
  kDestroyMessageConnection = 5,
  kCreateEventConnection = 6,
  kDestroyEventConnection = 7,
};
inline void TellDevice(DeviceCommand command, uint32_t connection, uint32_t cpu, uint32_t sint) {
  Out32(0x3000, connection << 24 | static_cast<uint32_t>(command) << 16 | cpu << 8 | sint);
}

// While it lives. Ids are one space for both kinds.
class Connection final {
 public:
  enum Kind { kMessages, kEvents };
  Connection(Kind kind, uint32_t id, uint32_t cpu, uint32_t sint) : kind_(kind), id_(id), cpu_(cpu), sint_(sint) {
    TellDevice(kind == kMessages ? DeviceCommand::kCreateMessageConnection : DeviceCommand::kCreateEventConnection, id, cpu,
               sint);
  }
  ~Connection() {
    TellDevice(kind_ == kMessages ? DeviceCommand::kDestroyMessageConnection : DeviceCommand::kDestroyEventConnection, id_, cpu_,
               sint_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

 private:
  const Kind kind_;
  const uint32_t id_, cpu_, sint_;
};

// --- Registers and pages ------------------------------------------------------------------------------------------------

void Fresh();
// Of processor `cpu`; where Fresh puts them.
uint8_t* MessagePage(uint32_t cpu);
uint8_t* EventPage(uint32_t cpu);
// Both pages read as zero when they were enabled for the first time, over memory that was not: of this processor.
bool PagesWereZeroAtFirst(uint32_t cpu);

void SetSint(uint32_t sint, uint64_t value);
inline void WriteEom() { WriteMsr(vmm::kHvMsrEom, 0); }
// `page` 0: off.
void SetMessagePage(const void* page);
void SetEventPage(const void* page);

inline uint64_t ReferenceTime() { return ReadMsr(vmm::kHvMsrTimeRefCount); }
inline uint32_t TimerConfigMsr(uint32_t timer) { return vmm::kHvMsrStimer0Config + 2 * timer; }
inline uint32_t TimerCountMsr(uint32_t timer) { return TimerConfigMsr(timer) + 1; }
inline uint64_t OnSint(uint32_t sint) { return uint64_t{sint} << vmm::kHvStimerSintShift; }
inline uint64_t OnVector(uint32_t vector) { return vmm::kHvStimerDirect | uint64_t{vector} << vmm::kHvStimerVectorShift; }
// COUNT, then CONFIG.
void SetTimer(uint32_t timer, uint64_t config, uint64_t count);
bool TimersAreKernels();  // backing=kernel

// --- Slots and flags ----------------------------------------------------------------------------------------------------

inline HvMessage& Slot(uint32_t cpu, uint32_t sint) { return reinterpret_cast<HvMessage*>(MessagePage(cpu))[sint]; }
inline uint32_t SlotType(uint32_t cpu, uint32_t sint) {
  return __atomic_load_n(reinterpret_cast<uint32_t*>(&Slot(cpu, sint).header.type), __ATOMIC_ACQUIRE);
}
inline bool IsPending(uint32_t cpu, uint32_t sint) {
  return (__atomic_load_n(&Slot(cpu, sint).header.flags, __ATOMIC_ACQUIRE) & vmm::kHvMessagePending) != 0;
}
// False: the slot is empty.
bool Take(uint32_t cpu, uint32_t sint, HvMessage& message, bool& more);

inline bool IsFlagSet(uint32_t cpu, uint32_t sint, uint32_t flag) {
  return (__atomic_load_n(EventPage(cpu) + sint * 256 + flag / 8, __ATOMIC_ACQUIRE) & 1u << flag % 8) != 0;
}
// True: it was set.
bool ClearFlag(uint32_t cpu, uint32_t sint, uint32_t flag);

// --- Messages that say whose they are -----------------------------------------------------------------------------------

static_assert(kProducers == kMaxSynicCpus);
HvStatus PostMarked(uint32_t connection, uint32_t producer, uint32_t sequence);

// Everything that arrives at one source, written down by whoever takes it: one processor at a time.
struct Collection {
  uint32_t cpu = 0;
  uint32_t sint = 0;
  bool auto_eoi = false;
  Atomic<uint32_t> next[kProducers];  // messages of each producer so far
  Atomic<uint32_t> wrong;             // torn, twice, lost or out of order
  Atomic<uint32_t> timer_messages;
  Atomic<uint32_t> wrong_timers;
  uint64_t last_expiration[vmm::kHvStimerCount] = {};

  void Reset(uint32_t at_cpu, uint32_t at_sint, bool is_auto_eoi = false);
  void Record(const HvMessage& message);
  // Takes all there is, with EOM where that is asked for.
  void Drain();
  [[nodiscard]] uint32_t Total() const;
};
extern Collection g_collection;
// On `vector`: Drain, then EOI.
void CollectOn(uint8_t vector);

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_HYPERV_SYNIC_DRIVER_H_
