// All processors at once: faults without end of which none is lost, and rights that are gone for everybody once a call has returned.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/random.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

constexpr uint32_t kFaults = 60;   // of each processor
constexpr uint32_t kRounds = 12;
constexpr uint32_t kSteps = 60;

uint64_t g_pages;  // one a processor, and a last one for all

uint64_t PageOf(uint32_t number) { return g_pages + number * kPageBytes; }

void SetUp() {
  EnableProtection();
  if (g_pages == 0) g_pages = GpaOf(AllocatePages(kMaxVsmCpus + 1));
}

// As many stores of this processor as VTL1 keeps intercepts of: each is one, at its address; VTL1 skips it.
template <typename AddressOf>
void FaultOften(Tally& tally, uint32_t cpu, AddressOf&& address) {
  SetReply(Reply::kSkip);
  for (uint32_t i = 0; i < kMostIntercepts; ++i) Store<uint8_t>(address(i), 0xff);
  const Intercepts& seen = SeenOf(cpu);
  tally.Equal(seen.count, kMostIntercepts, "one intercept a store");
  for (uint32_t i = 0; i < kMostIntercepts; ++i) {
    tally.Equal(seen.Memory(i).gpa, address(i), "in their order");
    tally.Equal(seen.Memory(i).header.vp_index, cpu, "of this processor");
  }
}

void Storm(uint64_t (*address)(uint32_t cpu, uint32_t round)) {
  SetUp();
  Tally tally;
  {
    const Protected pages(g_pages, kReadExecute, kMaxVsmCpus + 1);
    OnAllCpus([&] {
      const uint32_t cpu = ThisCpuNumber();
      for (uint32_t round = 0; round < kFaults; round += kMostIntercepts) {
        FaultOften(tally, cpu, [&](uint32_t i) { return address(cpu, round + i); });
      }
      SetReply(Reply::kFatal);
    });
  }
  for (uint64_t at = g_pages; at < PageOf(kMaxVsmCpus + 1); at += 8) {
    if (Load<uint64_t>(at) != 0) tally.Equal(Load<uint64_t>(at), 0, "nothing was stored");
  }
  EXPECT_TRUE(tally.ok());
}

TEST(EveryFaultOfEveryProcessorIsToldOnce) {
  Storm([](uint32_t cpu, uint32_t round) { return PageOf(cpu) + round * 8; });
}

TEST(AllProcessorsOnOnePage) {
  Storm([](uint32_t cpu, uint32_t round) { return PageOf(kMaxVsmCpus) + cpu * 1024 + round; });
}

// For as many seconds as the command line says (tests/soak --storm), or two: all processors fault without a pause, at a page of their own
// and at one of all in turns. Each fault is told once, and no processor falls far behind.
TEST(AStormLosesNothingAndStaysFair) {
  constexpr uint64_t kSecond = 10'000'000;  // of reference time
  constexpr uint64_t kFair = 8;  // the host's processors are fewer, and busy
  SetUp();
  Tally tally;
  static Atomic<uint64_t> told[kMaxVsmCpus];
  const uint64_t start = ReferenceTime(), end = start + NumberArgument("seconds", 2) * kSecond;
  const auto spread = [](uint64_t& least, uint64_t& most) {
    least = most = told[0].Load();
    for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) {
      least = told[cpu].Load() < least ? told[cpu].Load() : least;
      most = told[cpu].Load() > most ? told[cpu].Load() : most;
    }
  };
  uint64_t least, most;
  const auto say = [&] {
    spread(least, most);
    Line line;
    line << "# storm seconds " << (ReferenceTime() - start) / kSecond << " faults of a processor, least " << least << " most " << most;
    Print(line);
  };
  {
    const Protected pages(g_pages, kReadExecute, kMaxVsmCpus + 1);
    OnAllCpus([&] {
      const uint32_t cpu = ThisCpuNumber();
      const auto address = [cpu](uint32_t i) { return i % 2 == 0 ? PageOf(cpu) + i : PageOf(kMaxVsmCpus) + cpu * 64 + i; };
      uint64_t said = start;
      while (ReferenceTime() < end && tally.ok_so_far()) {
        FaultOften(tally, cpu, address);
        told[cpu].Add(kMostIntercepts);
        if (cpu != 0 || ReferenceTime() - said < 10 * kSecond) continue;
        said = ReferenceTime();
        say();
      }
      SetReply(Reply::kFatal);
    });
  }
  say();
  tally.True(least * kFair >= most, "no processor falls behind");
  EXPECT_TRUE(tally.ok());
}

// Whoever faults first frees the page for all: everyone's store is done once, and everyone goes on.
TEST(OnePageThatAnybodyFrees) {
  SetUp();
  Tally tally;
  for (uint32_t round = 1; round <= kRounds; ++round) {
    if (Protect(PageOf(0), kNoAccess) != Success(1)) Fatal("cannot protect");
    OnAllCpus([&] {
      const Intercepts seen = Intercepted(Reply::kLift, [&] { Store<uint32_t>(PageOf(0) + ThisCpuNumber() * 64, round); });
      tally.True(seen.count <= 1, "at most one intercept");
    });
    for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) tally.Equal(Load<uint32_t>(PageOf(0) + cpu * 64), round, "stored");
  }
  EXPECT_TRUE(tally.ok());
}

// Others write a page all the time. When the call returns that takes writing away, no write comes any more.
TEST(RightsAreGoneWhenTheCallReturns) {
  if (CpuCount() < 2) SKIP("needs two processors");
  SetUp();
  Tally tally;
  static Atomic<bool> stop;
  static Atomic<uint32_t> running;
  stop.Store(false);
  running.Store(0);
  auto writer = [] {
    const uint64_t at = PageOf(0) + ThisCpuNumber() * 64;
    SetReply(Reply::kRetry);  // again and again, until it is free
    running.Add(1);
    while (!stop.Load()) Store<uint64_t>(at, Load<uint64_t>(at) + 1);
    SetReply(Reply::kFatal);
  };
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) StartOnCpu(cpu, writer);
  tally.True(WaitFor([] { return running.Load() + 1 == CpuCount(); }), "they write");
  uint64_t last[kMaxVsmCpus] = {};
  const auto counters = [](uint32_t cpu) { return Load<uint64_t>(PageOf(0) + cpu * 64); };
  for (uint32_t round = 0; round < kRounds; ++round) {
    const uint32_t flags = round % 2 == 0 ? kReadExecute : kNoAccess;
    InVtl1([&] {
      if (ModifyProtection(PageOf(0), flags) != Success(1)) Fatal("cannot protect");
      for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) last[cpu] = counters(cpu);
      SpinTicks(3'000'000);
      for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) tally.Equal(counters(cpu), last[cpu], "no write after the call");
      if (ModifyProtection(PageOf(0), vmm::kHvProtectAll) != Success(1)) Fatal("cannot free");
    });
    for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) {
      tally.True(WaitFor([&] { return counters(cpu) != last[cpu]; }), "and they go on");
    }
  }
  stop.Store(true);
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) WaitForCpu(cpu);
  EXPECT_TRUE(tally.ok());
}

// A short soak: random calls, protections, faults, timers and interrupts between processors, with an oracle for each of them.
TEST(EverythingAtOnceAgainstAnOracle) {
  SetUp();
  constexpr uint8_t kIpi = 0x42, kTimer = 0x41;
  OnEachCpu([] {
    InVtl1([] {
      CountInterrupts(kIpi, Eoi::kApic);
      CountInterrupts(kTimer, Eoi::kApic);
    });
  });
  static Atomic<uint64_t> sent[kMaxVsmCpus];
  uint64_t before[kMaxVsmCpus], timers[kMaxVsmCpus];
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    sent[cpu].Store(0);
    before[cpu] = SecureInterruptCount(cpu, kIpi);
    timers[cpu] = SecureInterruptCount(cpu, kTimer);
  }
  Tally tally;
  OnAllCpus([&] {
    const uint32_t cpu = ThisCpuNumber();
    Random random(cpu + 1);
    bool allowed = true;  // of this processor's page
    uint64_t armed = 0, value = Load<uint64_t>(PageOf(cpu));
    for (uint32_t step = 0; step < kSteps; ++step) {
      switch (random.Below(5)) {
        case 0: {
          uint64_t got = 0;
          InVtl1([&] { got = Load<uint64_t>(PageOf(cpu)); });
          tally.Equal(got, value, "what VTL1 reads");
          break;
        }
        case 1:
          allowed = random.Below(2) == 0;
          tally.Equal(Protect(PageOf(cpu), allowed ? vmm::kHvProtectAll : kReadExecute), Success(1), "protection");
          break;
        case 2: {
          const Intercepts seen = Intercepted(Reply::kSkip, [&] { Store<uint64_t>(PageOf(cpu), step + 1); });
          tally.Equal(seen.count, allowed ? 0 : 1, "intercepts");
          if (allowed) value = step + 1;
          break;
        }
        case 3: {
          // One at a time to each processor: two of a vector that wait are one.
          const uint32_t to = (cpu + 1) % CpuCount();
          const uint64_t number = sent[to].Load() + 1;
          InVtl1([&] { SendIpi(to, kIpi); });
          tally.True(WaitFor([&] { return SecureInterruptCount(to, kIpi) == before[to] + number; }), "interrupt");
          sent[to].Store(number);
          break;
        }
        case 4:
          InVtl1([&] {
            WriteMsr(vmm::kHvMsrStimer0Config, vmm::kHvStimerDirect | vmm::kHvStimerAutoEnable |
                                                   uint64_t{kTimer} << vmm::kHvStimerVectorShift);
            WriteMsr(vmm::kHvMsrStimer0Config + 1, ReadMsr(vmm::kHvMsrTimeRefCount) + random.Below(5'000));
          });
          ++armed;
          tally.True(WaitFor([&] { return SecureInterruptCount(cpu, kTimer) == timers[cpu] + armed; }), "timer");
          break;
      }
    }
    tally.Equal(Protect(PageOf(cpu), vmm::kHvProtectAll), Success(1), "free");
    tally.Equal(Load<uint64_t>(PageOf(cpu)), value, "what is left");
    tally.Equal(SecureInterruptCount(cpu, kTimer), timers[cpu] + armed, "each timer once");
  });
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    tally.Equal(SecureInterruptCount(cpu, kIpi), before[cpu] + sent[cpu].Load(), "each interrupt once");
    tally.Equal(CountsOf(cpu).others.Load(), 0, "no entry without a reason");
  }
  EXPECT_TRUE(tally.ok());
}

}  // namespace
}  // namespace guest
