// What ends a machine through the Hyper-V interface. The runner of all guests gives no argument, and then nothing here does;
// tests/vm/guest_ends_test.py gives end=... and looks at what comes of it.
#include "devices/hyperv/hv_msr_layout.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using namespace vmm;

void SetCrashParameters(uint64_t p3, uint64_t p4) {
  for (uint32_t n = 0; n < 3; ++n) WriteMsr(kHvMsrCrashP0 + n, 0xc0de'0000 + n);
  WriteMsr(kHvMsrCrashP0 + 3, p3);
  WriteMsr(kHvMsrCrashP4, p4);
}

void CrashWithText(const char* text, uint64_t bytes) {
  auto* const page = static_cast<char*>(AllocatePages(1));
  memcpy(page, text, strlen(text));
  SetCrashParameters(GpaOf(page), bytes);
  WriteMsr(kHvMsrCrashCtl, kHvCrashNotify | kHvCrashMessage);
}

void End(const char* how) {
  const auto is = [how](const char* name) { return strcmp(how, name) == 0; };
  if (is("crash")) {
    SetCrashParameters(0x33, 0x44);
    WriteMsr(kHvMsrCrashCtl, kHvCrashNotify);
  } else if (is("crash-text")) {
    CrashWithText("disk\x1b[2J on fire\n\xff", 20);
  } else if (is("crash-page")) {
    auto* const page = static_cast<char*>(AllocatePages(1));
    memset(page, 'x', kPageBytes);
    SetCrashParameters(GpaOf(page), kPageBytes);
    WriteMsr(kHvMsrCrashCtl, kHvCrashNotify | kHvCrashMessage);
  } else if (is("crash-too-long")) {
    CrashWithText("a", kPageBytes + 1);
  } else if (is("crash-not-ram")) {
    SetCrashParameters(~uint64_t{0xfff}, 16);
    WriteMsr(kHvMsrCrashCtl, kHvCrashNotify | kHvCrashMessage);
  } else if (is("reset")) {
    WriteMsr(kHvMsrReset, kHvResetNow);
  } else if (is("crash-everywhere")) {  // once
    OnAllCpus([] {
      SetCrashParameters(0, 0);
      while (true) WriteMsr(kHvMsrCrashCtl, kHvCrashNotify);
    });
  }
}

TEST(NothingEndsThatHasNotBeenNotified) {
  OnEachCpu([] {
    SetCrashParameters(~uint64_t{0}, ~uint64_t{0});
    EXPECT_NO_FAULT(WriteMsr(kHvMsrCrashCtl, kHvCrashMessage));
    EXPECT_NO_FAULT(WriteMsr(kHvMsrReset, 0));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrReset, kHvResetNow | 2));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrCrashCtl, kHvCrashNotify | 1));
  });
}

TEST(TheMachineEndsAsItIsTold) {
  const char* const how = Argument("end");
  if (how == nullptr) SKIP("no end= on the command line");
  OnCpu(CpuCount() - 1, [how] {
    End(how);
    // The machine's processors run on until each is told.
    (void)WaitFor([] { return false; });
  });
  EXPECT_TRUE(false);  // not reached
}

}  // namespace
}  // namespace guest
