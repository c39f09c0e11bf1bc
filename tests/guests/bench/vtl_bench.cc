// What trust levels cost, as a guest sees it. bench/vtl.py starts this kernel, and counts exits and system calls from outside.
//
// Shapes   every scenario is a TEST, and is done by all processors at once. Its lines: "# begin NAME" and "#.", after each of which a
//          byte on the serial port is waited for, and "# result NAME key number ...", where `operations` is how many of all
//          processors together were between the two. What the second line costs is counted too: hence its length.
// Units    result times are nanoseconds by the TSC and the frequency in the Hyper-V MSR; those of processor 0.
// Errors   an operation that does not do what it should is a failed assertion.
#include "devices/hyperv/hv_msr_layout.h"
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

constexpr uint32_t kSamples = 600;    // of each processor
constexpr uint32_t kWarmUp = 20;
constexpr uint16_t kMostPages = 510;  // that one page of input names
constexpr uint16_t kNobodysPort = 0x2f7;

uint64_t g_tsc_khz;
uint64_t g_pages;  // kMostPages of each processor
uint64_t g_times[kSamples];

uint64_t PagesOf(uint32_t cpu) { return g_pages + uint64_t{cpu} * kMostPages * kPageBytes; }
uint64_t Nanoseconds(uint64_t ticks) { return ticks * 1'000'000 / g_tsc_khz; }

void SetUp() {
  EnableProtection();
  if (g_pages != 0) return;
  uint64_t hz = 0;
  if (TryReadMsr(vmm::kHvMsrTscFrequency, hz).raised() || hz == 0) Fatal("the TSC's frequency is not to be had");
  g_tsc_khz = hz / 1000;
  g_pages = GpaOf(AllocatePages(uint64_t{kMostPages} * CpuCount()));
}

// Halted meanwhile, till the port interrupts: a look at the port would be an exit like those that are counted.
void Mark(const Line& line) {
  constexpr uint16_t kSerial = 0x3f8, kInterruptEnable = kSerial + 1, kModemControl = kSerial + 4;
  constexpr uint8_t kReceived = 1, kInterruptsPass = 0xb;
  constexpr uint32_t kSerialInput = 4;
  constexpr uint8_t kVector = 0x48;
  static Atomic<uint32_t> answers;
  const bool waits = Argument("marks") != nullptr;
  if (waits) {
    answers.Store(0);
    SetInterruptHandler(kVector, [](InterruptFrame&) {
      (void)In8(kSerial);
      SignalEoi();
      answers.Add(1);
    });
    RouteIoApic(kSerialInput, kVector, 0, Trigger::kEdge);
    Out8(kModemControl, kInterruptsPass);
    Out8(kInterruptEnable, kReceived);
  }
  Print(line);
  if (!waits) return;
  DisableInterrupts();
  while (answers.Load() == 0) {
    EnableInterruptsAndHalt();
    DisableInterrupts();
  }
  EnableInterrupts();
  Out8(kInterruptEnable, 0);
}

void Report(const char* name, uint32_t samples, uint32_t each) {
  for (uint32_t gap = samples / 2; gap > 0; gap /= 2) {
    for (uint32_t i = gap; i < samples; ++i) {
      const uint64_t value = g_times[i];
      uint32_t at = i;
      for (; at >= gap && g_times[at - gap] > value; at -= gap) g_times[at] = g_times[at - gap];
      g_times[at] = value;
    }
  }
  Line line;
  line << "# result " << name << " operations " << uint64_t{samples} * each * CpuCount() << " median " << Nanoseconds(g_times[samples / 2]) / each << " p99 "
       << Nanoseconds(g_times[samples * 99 / 100]) / each;
  Print(line);
}

// `operation(n)` on all processors at once, `samples` times each, not counting some before. Each stands for `each` of what is counted.
// `around(f)` is where a processor does them: here, or in VTL1.
template <typename Around, typename Operation>
void Measure(const char* name, uint32_t samples, uint32_t each, Around around, Operation operation) {
  OnAllCpus([&] {
    around([&] {
      for (uint32_t i = 0; i < kWarmUp; ++i) operation(i);
    });
  });
  Line begin, end;
  begin << "# begin " << name;
  end << "#.";
  Mark(begin);
  OnAllCpus([&] {
    const bool first = ThisCpuNumber() == 0;
    around([&] {
      for (uint32_t i = 0; i < samples; ++i) {
        const uint64_t start = ReadTsc();
        operation(i);
        if (first) g_times[i] = ReadTsc() - start;
      }
    });
  });
  Mark(end);
  Report(name, samples, each);
}
constexpr auto kHere = [](auto&& body) { body(); };
constexpr auto kInVtl1 = [](auto&& body) { InVtl1(body); };

uint64_t VtlCalls() {
  uint64_t calls = 0;
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) calls += CountsOf(cpu).calls.Load();
  return calls;
}

// --- The floor ----------------------------------------------------------------------------------------------------------

// An exit to user space and back, which finds nobody there.
TEST(PortOfNobody) {
  SetUp();
  Measure("port", kSamples, 1, kHere, [](uint32_t) { Out8(kNobodysPort, 0); });
  EXPECT_GT(g_times[0], 0u);
}

// A hypercall that does nothing but be refused: an exit and the way through our decoder.
TEST(Hypercall) {
  SetUp();
  Tally tally;
  Measure("hypercall", kSamples, 1, kHere, [&](uint32_t) {
    tally.Equal(CallFast({.code = static_cast<HypercallCode>(0xfff)}), Answer(HvStatus::kInvalidHypercallCode), "answer");
  });
  EXPECT_TRUE(tally.ok());
}

// --- Calls and returns --------------------------------------------------------------------------------------------------

template <typename Before>
void Calls(const char* name, bool fast, Before before) {
  SetUp();
  OnAllCpus([fast] { InVtl1([fast] { SetFastReturn(fast); }); });
  const uint64_t calls = VtlCalls();
  Measure(name, kSamples, 1, kHere, [&](uint32_t i) {
    before(i);
    CallInVtl1(nullptr, nullptr);
  });
  const uint64_t made = VtlCalls() - calls;
  OnAllCpus([] { InVtl1([] { SetFastReturn(false); }); });
  EXPECT_EQ(made, uint64_t{kSamples + kWarmUp} * CpuCount());
}

TEST(CallAndReturn) {
  Calls("call", false, [](uint32_t) {});
}
TEST(CallAndFastReturn) {
  Calls("call-fast", true, [](uint32_t) {});
}
// VTL0 has used its vector registers since the last call.
TEST(CallWithNewVectorState) {
  Calls("call-vector", false, [](uint32_t i) { asm volatile("movq %0, %%xmm3" : : "r"(uint64_t{i}) : "memory"); });
}
TEST(CallWithNewDebugRegister) {
  Calls("call-debug", false, [](uint32_t i) { asm volatile("mov %0, %%dr1" : : "r"(uint64_t{i} * 8) : "memory"); });
}

// --- Intercepts ---------------------------------------------------------------------------------------------------------

void Faults(const char* name, Reply reply, InterceptHandler handler, void (*fault)(uint64_t page, uint32_t i), bool again) {
  SetUp();
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    if (Protect(PagesOf(cpu), kReadExecute) != Success(1)) Fatal("pages cannot be protected");
  }
  uint64_t seen[kMaxVsmCpus] = {};
  OnAllCpus([&] { SetReply(reply, handler); });
  Measure(name, kSamples, 1, kHere, [&](uint32_t i) {
    const uint64_t page = PagesOf(ThisCpuNumber());
    fault(page, i);
    if (again && Protect(page, kReadExecute) != Success(1)) Fatal("pages cannot be protected");
  });
  Tally tally;
  OnAllCpus([&] {
    seen[ThisCpuNumber()] = SeenOf(ThisCpuNumber()).count;
    SetReply(Reply::kFatal);
  });
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    tally.Equal(seen[cpu], kSamples + kWarmUp, "one intercept an access");
    if (Protect(PagesOf(cpu), vmm::kHvProtectAll) != Success(1)) Fatal("pages cannot be freed");
  }
  EXPECT_TRUE(tally.ok());
}

uint64_t g_elsewhere[kMaxVsmCpus];

// VTL1 changes the register that the access goes by: it is made again, to somewhere else, and no hypercall is part of it.
void Redirected(const char* name) {
  Faults(name, Reply::kCall,
         [](const vmm::HvMessage&, VtlFrame& frame) { frame.rbx = GpaOf(&g_elsewhere[ThisCpuNumber()]); },
         [](uint64_t page, uint32_t i) { asm volatile("mov %1, (%0)" : "+b"(page) : "a"(uint64_t{i}) : "memory"); }, false);
  EXPECT_EQ(g_elsewhere[0], uint64_t{kSamples - 1});
}
TEST(InterceptAndTheAccessAgain) { Redirected("intercept"); }

// The same of a VTL1 that can be interrupted at its entry. Else the interrupt waits till it can, which is an exit more.
TEST(InterceptOfAnOpenVtl1) {
  OnAllCpus([] { InVtl1([] { SetOpenReturn(true); }); });
  Redirected("intercept-open");
  OnAllCpus([] { InVtl1([] { SetOpenReturn(false); }); });
}

// VTL1 sets RIP behind the instruction: one hypercall.
TEST(InterceptThatIsSkipped) {
  Faults("intercept-skip", Reply::kSkip, nullptr, [](uint64_t page, uint32_t i) { Store<uint64_t>(page, i); }, false);
}

// VTL1 allows the page, the access is made, a VTL call protects the page again.
TEST(InterceptThatFreesThePage) {
  Faults("intercept-lift", Reply::kLift, nullptr, [](uint64_t page, uint32_t i) { Store<uint64_t>(page, i); }, true);
  EXPECT_EQ(Load<uint64_t>(PagesOf(0)), uint64_t{kSamples - 1});
}

// --- Registers and ports that VTL1 watches --------------------------------------------------------------------------------------

// VTL1 skips the access: one hypercall.
template <typename Operation>
void Watched(const char* name, Operation operation) {
  OnAllCpus([] { SetReply(Reply::kSkip); });
  Measure(name, kSamples, 1, kHere, operation);
  Tally tally;
  OnAllCpus([&] {
    tally.Equal(SeenOf(ThisCpuNumber()).count, kSamples + kWarmUp, "one intercept an access");
    SetReply(Reply::kFatal);
  });
  EXPECT_TRUE(tally.ok());
}

TEST(InterceptOfAnMsr) {
  SetUp();
  constexpr uint32_t kLstar = 0xc000'0082;
  const auto watch = [](uint64_t events) {
    OnAllCpus([events] {
      uint64_t answer = 0;
      InVtl1([&] { answer = SetRegister(HvRegisterName::kCrInterceptControl, {events, 0}); });
      if (answer != Success(1)) Fatal("CrInterceptControl answers", answer);
    });
  };
  watch(uint64_t{1} << static_cast<unsigned>(vmm::CrEvent::kLstarWrite));
  Watched("intercept-msr", [](uint32_t i) { WriteMsr(kLstar, i); });
  watch(0);
}

TEST(InterceptOfAPort) {
  SetUp();
  const auto watch = [](uint32_t access) {
    uint64_t answer = 0;
    InVtl1([&] {
      Block().Put(vmm::HvInstallInterceptInput{
          .partition_id = vmm::kHvPartitionIdSelf, .access = access, .type = vmm::kHvInterceptIoPort, .parameter = kNobodysPort});
      answer = CallMemory({.code = HypercallCode::kInstallIntercept});
    });
    if (answer != Success()) Fatal("InstallIntercept answers", answer);
  };
  watch(vmm::kHvInterceptWrite);
  Watched("intercept-port", [](uint32_t) { Out8(kNobodysPort, 0); });
  watch(0);
}

// --- Protections --------------------------------------------------------------------------------------------------------

// In VTL1: calls alone. Taken away and given back in turn, of neighbours in one call.
void Protections(const char* name, uint16_t pages) {
  SetUp();
  Tally tally;
  Measure(name, pages > 100 ? kSamples / 4 : kSamples, pages, kInVtl1, [&](uint32_t i) {
    const uint32_t flags = i % 2 == 0 ? kReadExecute : vmm::kHvProtectAll;
    tally.Equal(ModifyProtection(PagesOf(ThisCpuNumber()), flags, pages), Success(pages), "answer");
  });
  EXPECT_TRUE(tally.ok());
}
TEST(ProtectOnePage) { Protections("protect-1", 1); }
TEST(Protect16Pages) { Protections("protect-16", 16); }
TEST(ProtectAllThatOneCallNames) { Protections("protect-510", kMostPages); }

}  // namespace
}  // namespace guest
