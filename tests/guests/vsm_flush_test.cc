// Flushes of VTL0, and the locks by which VTL1 keeps VTL0's translations as they are.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using Name = HvRegisterName;

uint64_t SecureConfig() { return RegisterValue(Name::kVsmVpSecureConfigVtl0); }
uint64_t SetSecureConfig(uint64_t value) { return SetRegister(Name::kVsmVpSecureConfigVtl0, {value, 0}); }

TEST(SecureConfigsThatAreNone) {
  EnableVtl1();
  EXPECT_EQ(SetRegister(Name::kVsmVpSecureConfigVtl0, {0, 0}), Answer(HvStatus::kAccessDenied));  // of VTL0, by VTL0
  InVtl1([] {
    EXPECT_EQ(SecureConfig(), 0u);
    EXPECT_EQ(SetSecureConfig(4), Answer(HvStatus::kInvalidRegisterValue));
    EXPECT_EQ(SetSecureConfig(vmm::kHvSecureMbec), Answer(HvStatus::kInvalidRegisterValue));  // not enabled on the partition
    EXPECT_EQ(SetRegister(static_cast<Name>(static_cast<uint32_t>(Name::kVsmVpSecureConfigVtl0) + 1), {0, 0}),
              Answer(HvStatus::kAccessDenied));  // its own
  });
}

// A lock of one's own processor is no reason to wait, and is gone with the return.
TEST(ALockEndsWithTheReturn) {
  InVtl1([] {
    EXPECT_EQ(SetSecureConfig(vmm::kHvSecureTlbLocked), Success(1));
    EXPECT_EQ(SecureConfig(), vmm::kHvSecureTlbLocked);
    EXPECT_EQ(FlushAll(), Success());  // VTL1's own translations are not locked
  });
  EXPECT_EQ(FlushAll(), Success());
  InVtl1([] { EXPECT_EQ(SecureConfig(), 0u); });
}

// Another processor's VTL1 holds the lock: a flush of VTL0 there is over when it lets go, in whichever way.
void TestWait(bool by_return) {
  if (CpuCount() < 2) SKIP("needs two processors");
  EnableVtl1();
  static Atomic<uint32_t> locked, finish, done;
  static bool returns;
  returns = by_return;
  for (Atomic<uint32_t>* const flag : {&locked, &finish, &done}) flag->Store(0);
  auto holder = [] {
    InVtl1([] {
      (void)SetSecureConfig(vmm::kHvSecureTlbLocked);
      locked.Store(1);
      (void)WaitFor([] { return finish.Load() != 0; });
      if (returns) return;
      (void)SetSecureConfig(0);
      (void)WaitFor([] { return done.Load() != 0; });
    });
  };
  StartOnCpu(1, holder);
  ASSERT_TRUE(WaitFor([] { return locked.Load() != 0; }));
  const uint64_t entries = CountsOf(0).interrupts.Load();
  constexpr uint8_t kTimer = 0x41;
  static uint32_t done_at_tick;
  done_at_tick = 99;
  InVtl1([] {
    // VTL1 of the processor that waits is entered meanwhile: it sees that nothing is done, and ends the wait.
    SetInterruptHandler(kTimer, [](InterruptFrame&) {
      SignalEoi();
      done_at_tick = done.Load();
      finish.Store(1);
    });
    WriteMsr(vmm::kHvMsrStimer0Config,
             vmm::kHvStimerDirect | vmm::kHvStimerAutoEnable | uint64_t{kTimer} << vmm::kHvStimerVectorShift);
    // Late enough that VTL1 of a slow machine has returned by then.
    constexpr uint64_t kTenthOfASecond = 1'000'000;
    WriteMsr(vmm::kHvMsrStimer0Config + 1, ReadMsr(vmm::kHvMsrTimeRefCount) + kTenthOfASecond);
  });
  EXPECT_EQ(FlushAll(), Success());
  done.Store(1);
  EXPECT_EQ(done_at_tick, 0u);
  EXPECT_EQ(finish.Load(), 1u);
  EXPECT_EQ(CountsOf(0).interrupts.Load(), entries + 1);
  WaitForCpu(1);
}
TEST(AFlushWaitsForTheLock) { TestWait(false); }
TEST(AFlushWaitsForTheReturn) { TestWait(true); }

// VTL0 of the processor that waits takes its own interrupts, and its handler's own calls wait too.
TEST(Vtl0sInterruptsAreTakenWhileAFlushWaits) {
  if (CpuCount() < 2) SKIP("needs two processors");
  EnableVtl1();
  static Atomic<uint32_t> locked, finish, taken;
  static uint32_t taken_before_done;
  constexpr uint8_t kVector = 0x53;
  for (Atomic<uint32_t>* const flag : {&locked, &finish, &taken}) flag->Store(0);
  SetInterruptHandler(kVector, [](InterruptFrame&) {
    SignalEoi();
    taken.Add(1);
  });
  auto holder = [] {
    InVtl1([] {
      (void)SetSecureConfig(vmm::kHvSecureTlbLocked);
      locked.Store(1);
      // To VTL0 of the processor that waits, by a path of the monitor's and one of the host kernel's.
      for (uint32_t sent = 0; sent < 5; ++sent) {
        SpinTicks(1'000'000);
        (void)SendIpiByHypercall(kVector, 1, OfVtl(0));
        (void)WaitFor([sent] { return taken.Load() > sent; });
      }
      taken_before_done = taken.Load();
      finish.Store(1);
    });
  };
  StartOnCpu(1, holder);
  ASSERT_TRUE(WaitFor([] { return locked.Load() != 0; }));
  EXPECT_EQ(FlushAll(), Success());
  EXPECT_EQ(finish.Load(), 1u);
  EXPECT_EQ(taken_before_done, 5u);
  WaitForCpu(1);
}

// All but one wait at once.
TEST(ManyWaitForOneLock) {
  if (CpuCount() < 2) SKIP("needs two processors");
  static Atomic<uint32_t> locked, waiting, early;
  static bool over;
  for (Atomic<uint32_t>* const flag : {&locked, &waiting, &early}) flag->Store(0);
  over = false;
  OnAllCpus([] {
    if (ThisCpuNumber() == 0) {
      InVtl1([] {
        (void)SetSecureConfig(vmm::kHvSecureTlbLocked);
        locked.Store(1);
        (void)WaitFor([] { return waiting.Load() == CpuCount() - 1; });
        SpinTicks(2'000'000);
        __atomic_store_n(&over, true, __ATOMIC_SEQ_CST);
      });
    } else {
      (void)WaitFor([] { return locked.Load() != 0; });
      waiting.Add(1);
      (void)FlushAll();
      if (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) early.Add(1);
    }
  });
  EXPECT_EQ(early.Load(), 0u);
}

}  // namespace
}  // namespace guest
