// Hypercalls that mean nothing, from all processors at once: registers and parameter pages are random, from a fixed seed. Nothing
// ends the machine, no memory but what a call names as its output is written, and afterwards everything works.
//
// Left out is what a guest may well do to itself: registers whose change moves pages, timers and interrupts. SetVpRegisters gets
// names that cannot be set, or that only hold a value.
#include "tests/guests/hypercalls.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/modes.h"
#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using vmm::HvRegisterName;
using vmm::HvVpRegistersInput;
using vmm::kHvPartitionIdSelf;

constexpr uint32_t kCallsEach = 400;
constexpr uint64_t kSeed = 0x5eed'0000'0000'0001;

// Xorshift.
class Random final {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e37'79b9'7f4a'7c15 | 1) {}
  uint64_t Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  uint32_t Below(uint32_t limit) { return static_cast<uint32_t>((Next() >> 32) % limit); }
  // Numbers that code decides by: small ones, ones of a single bit, all of them, any.
  uint64_t Word() {
    switch (Below(5)) {
      case 0: return Below(8);
      case 1: return uint64_t{1} << Below(64);
      case 2: return ~uint64_t{0};
      case 3: return Next() & 0xffff'ffff;
      default: return Next();
    }
  }

 private:
  uint64_t state_;
};

constexpr HypercallCode kCodes[] = {
    HypercallCode::kFlushVirtualAddressSpace, HypercallCode::kFlushVirtualAddressList, HypercallCode::kNotifyLongSpinWait,
    HypercallCode::kSendSyntheticClusterIpi, HypercallCode::kVtlCall, HypercallCode::kVtlReturn,
    HypercallCode::kFlushVirtualAddressSpaceEx, HypercallCode::kFlushVirtualAddressListEx,
    HypercallCode::kSendSyntheticClusterIpiEx, HypercallCode::kGetPartitionId, HypercallCode::kGetVpRegisters,
    HypercallCode::kPostMessage, HypercallCode::kSignalEvent, HypercallCode::kStartVirtualProcessor,
    HypercallCode::kGetVpIndexFromApicId, HypercallCode::kExtQueryCapabilities,
};

bool IsIpi(HypercallCode code) {
  return code == HypercallCode::kSendSyntheticClusterIpi || code == HypercallCode::kSendSyntheticClusterIpiEx;
}

// Any vector may come.
void CountAllVectors() {
  for (uint32_t vector = 32; vector < 256; ++vector) {
    if (vector != kWorkVector && vector != kSpuriousVector) CountInterrupts(static_cast<uint8_t>(vector), Eoi::kApic);
  }
}

struct Tally {
  Atomic<uint64_t> results[256];  // by status
  Atomic<uint64_t> faults;        // #UD
  Atomic<uint64_t> other_faults;
  Atomic<uint64_t> no_results;    // RAX is no result value
  Atomic<uint64_t> overwritten;   // memory beside the output
};
Tally g_tally;

constexpr uint64_t kGuard = 0xa5a5'5a5a'a5a5'5a5a;

// Pages around the output, which must stay as they are.
struct Area {
  uint64_t before[512], output[512], after[512];
};

uint64_t RandomControl(Random& random, HypercallCode& code) {
  const uint32_t kind = random.Below(8);
  code = kind == 0 ? static_cast<HypercallCode>(random.Next()) : kCodes[random.Below(sizeof(kCodes) / sizeof(kCodes[0]))];
  if (code == HypercallCode::kSetVpRegisters) code = HypercallCode::kGetVpRegisters;
  const bool rep = code == HypercallCode::kFlushVirtualAddressList || code == HypercallCode::kFlushVirtualAddressListEx ||
                   code == HypercallCode::kGetVpRegisters || code == HypercallCode::kGetVpIndexFromApicId;
  Control control{.code = code, .fast = random.Below(2) == 0};
  // Mostly of the right shape, so that calls get far.
  if (rep) control.reps = static_cast<uint16_t>(random.Below(4) == 0 ? random.Below(4096) : 1 + random.Below(8));
  if (rep && random.Below(4) == 0) control.start = static_cast<uint16_t>(random.Below(8));
  if (random.Below(8) == 0) control.variable = static_cast<uint16_t>(random.Below(8));
  uint64_t value = control.value();
  if (random.Below(16) == 0) value ^= uint64_t{1} << (16 + random.Below(48));
  if (kind == 1) value = (random.Next() & ~uint64_t{0xffff}) | static_cast<uint16_t>(code);
  return value;
}

// The page's first bytes are what headers begin with, so that some calls get through.
void FillInput(Random& random, uint64_t* input, HypercallCode code) {
  for (uint32_t i = 0; i < 40; ++i) input[i] = random.Word();
  if (random.Below(2) == 0) input[0] = kHvPartitionIdSelf;
  if (random.Below(2) == 0) input[1] = random.Below(CpuCount());
  if (code == HypercallCode::kGetVpRegisters && random.Below(2) == 0) {
    input[2] = static_cast<uint64_t>(HvRegisterName::kVpIndex) << 32 | static_cast<uint32_t>(HvRegisterName::kGuestOsId);
  }
  if (IsIpi(code)) {
    // Vectors of exceptions would be taken for faults, and the last two are the runtime's.
    const uint64_t vector = random.Below(8) == 0 ? random.Below(16) : 32 + random.Below(200);
    input[0] = random.Below(8) == 0 ? (random.Next() | 0x100) : vector;
  }
}

void CallAtRandom() {
  Random random(kSeed + ThisCpuNumber());
  auto* const area = static_cast<Area*>(AllocatePages(3));
  auto* const input = static_cast<uint64_t*>(AllocatePages(1));
  volatile uint64_t* const before = area->before;
  volatile uint64_t* const after = area->after;
  for (size_t i = 0; i < 512; ++i) {
    before[i] = kGuard;
    after[i] = kGuard;
  }
  for (uint32_t call = 0; call < kCallsEach; ++call) {
    HypercallCode code;
    const uint64_t control = RandomControl(random, code);
    FillInput(random, input, code);
    Registers registers{.rax = 0xaaaa'aaaa'aaaa'aaaa, .rbx = random.Next(), .rcx = control};
    const bool fast = (control & vmm::HypercallInput::kFast) != 0;
    if (fast) {
      registers.rdx = input[0];
      registers.r8 = input[1];
      memcpy(registers.xmm, &input[2], sizeof(registers.xmm));
    } else {
      registers.rdx = GpaOf(input) + (random.Below(8) == 0 ? random.Below(4096) : 0);
      registers.r8 = GpaOf(area->output) + (random.Below(8) == 0 ? random.Below(4096) : 0);
      if (random.Below(16) == 0) registers.rdx = random.Word() << 32;  // never within RAM but for 0
      if (random.Below(16) == 0) registers.r8 = random.Next() | uint64_t{1} << 40;
    }
    // What lies at such an address is not known here: an IPI may be of any vector then.
    if (!fast && IsIpi(code) && registers.rdx != GpaOf(input)) continue;
    if (!fast && registers.rdx < GpaOf(input)) registers.rdx |= uint64_t{1} << 40;
    const Fault fault = Catch([&] { CallWithRegisters(HypercallPage(), registers); });
    if (fault.raised()) {
      (fault.vector == kUndefinedOpcode ? g_tally.faults : g_tally.other_faults).Add(1);
      continue;
    }
    if ((registers.rax & ~uint64_t{0xfff'0000'00ff}) != 0) g_tally.no_results.Add(1);
    g_tally.results[registers.rax & 0xff].Add(1);
  }
  uint64_t overwritten = 0;
  for (size_t i = 0; i < 512; ++i) overwritten += (before[i] != kGuard) + (after[i] != kGuard);
  g_tally.overwritten.Add(overwritten);
}

TEST(RandomCallsFromAllProcessorsEndNothing) {
  EnableHypercalls();
  CountAllVectors();
  OnAllCpus([] { CallAtRandom(); });
  EXPECT_EQ(g_tally.other_faults.Load(), 0u);
  EXPECT_EQ(g_tally.no_results.Load(), 0u);
  EXPECT_EQ(g_tally.overwritten.Load(), 0u);
  // The calls were not all turned away at the door.
  EXPECT_GT(g_tally.faults.Load(), 0u);
  for (const HvStatus status : {HvStatus::kSuccess, HvStatus::kInvalidHypercallCode, HvStatus::kInvalidHypercallInput,
                                HvStatus::kInvalidAlignment, HvStatus::kInvalidParameter, HvStatus::kAccessDenied,
                                HvStatus::kInvalidPartitionId, HvStatus::kInvalidVpIndex, HvStatus::kInvalidConnectionId}) {
    const Context context("status", static_cast<uint64_t>(status));
    EXPECT_GT(g_tally.results[static_cast<size_t>(status)].Load(), 0u);
  }
}

// Everything in all registers, from 32-bit code.
TEST(RandomCallsFrom32BitCodeEndNothing) {
  Atomic<uint64_t> other_faults;
  OnAllCpus([&] {
    Random random(kSeed * 3 + ThisCpuNumber());
    for (uint32_t call = 0; call < kCallsEach / 2; ++call) {
      HypercallCode code;
      const uint64_t control = RandomControl(random, code);
      if (IsIpi(code)) continue;
      // Parameters in memory are where no RAM is.
      Registers32 registers{.eax = static_cast<uint32_t>(control), .ebx = static_cast<uint32_t>(random.Next()) | 0x100,
                            .ecx = static_cast<uint32_t>(random.Next()), .edx = static_cast<uint32_t>(control >> 32),
                            .esi = static_cast<uint32_t>(random.Next()), .edi = static_cast<uint32_t>(random.Next()) | 0x100};
      const Fault fault = CallIn32BitMode(HypercallPage(), registers);
      if (fault.raised() && fault.vector != kUndefinedOpcode) other_faults.Add(1);
    }
  });
  EXPECT_EQ(other_faults.Load(), 0u);
}

// Registers of all kinds set to anything, but for those by which the guest would move its pages or end.
TEST(RandomRegistersEndNothing) {
  Atomic<uint64_t> no_results, successes;
  OnAllCpus([&] {
    Random random(kSeed * 5 + ThisCpuNumber());
    for (uint32_t call = 0; call < kCallsEach / 2; ++call) {
      auto name = static_cast<HvRegisterName>(random.Below(2) == 0 ? random.Next() : random.Below(16) << 16 | random.Below(32));
      switch (static_cast<uint32_t>(name) >> 16) {
        case 0x0000: name = HvRegisterName::kCrashP0; break;  // CRASH_CTL ends the machine: as it should
        case 0x0009: name = HvRegisterName::kVpIndex; break;
        // SINTs stay masked, timers off, and pages where they are.
        case 0x000a: name = HvRegisterName::kSversion; break;
        case 0x000b: name = HvRegisterName::kStimer3Count; break;
        default: break;
      }
      const uint32_t vp = random.Below(CpuCount() + 1);
      Block()
          .Put(HvVpRegistersInput{.partition_id = kHvPartitionIdSelf, .vp_index = vp, .target_vtl = 0, .reserved = {}})
          .Put(vmm::HvSetVpRegistersElement{.name = name, .reserved = {}, .value = {random.Word(), random.Word()}});
      const uint64_t answer = CallMemory({.code = HypercallCode::kSetVpRegisters, .reps = 1});
      no_results.Add((answer & ~uint64_t{0xfff'0000'00ff}) != 0);
      successes.Add(answer == Success(1));
    }
  });
  EXPECT_EQ(no_results.Load(), 0u);
  EXPECT_GT(successes.Load(), 0u);
}

TEST(AfterwardsEverythingWorks) {
  constexpr uint8_t kVector = 0x61;
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    EXPECT_EQ(CallFast({.code = HypercallCode::kNotifyLongSpinWait}), Success());
    for (uint32_t vp = 0; vp < CpuCount(); ++vp) {
      Block()
          .Put(HvVpRegistersInput{.partition_id = kHvPartitionIdSelf, .vp_index = vp, .target_vtl = 0, .reserved = {}})
          .Put(HvRegisterName::kVpIndex);
      EXPECT_EQ(CallMemory({.code = HypercallCode::kGetVpRegisters, .reps = 1}), Success(1));
      EXPECT_EQ(Output()[0], vp);
      const uint64_t before = InterruptCountOf(vp, kVector);
      EXPECT_EQ(CallFast({.code = HypercallCode::kSendSyntheticClusterIpi}, kVector, uint64_t{1} << vp), Success());
      EXPECT_TRUE(WaitFor([&] { return InterruptCountOf(vp, kVector) == before + 1; }));
    }
    uint64_t words[kFastWords] = {ReadCr3(), vmm::kHvFlushAllProcessors};
    EXPECT_EQ(CallInRegisters({.code = HypercallCode::kFlushVirtualAddressSpace}, words), Success());
  });
}

}  // namespace
}  // namespace guest
