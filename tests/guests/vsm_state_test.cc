// Which of a processor's state the levels share, and of which each has its own.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

TEST(FaultAddressAndBreakpointsAreShared) {
  const auto write_cr2 = [](uint64_t value) { asm volatile("mov %0, %%cr2" : : "r"(value)); };
  struct Debug {
    uint64_t dr[4];
  };
  const auto load = [](const Debug& d) {
    asm volatile("mov %0, %%dr0; mov %1, %%dr1; mov %2, %%dr2; mov %3, %%dr3" : : "r"(d.dr[0]), "r"(d.dr[1]), "r"(d.dr[2]), "r"(d.dr[3]));
  };
  const auto store = [] {
    Debug d;
    asm volatile("mov %%dr0, %0; mov %%dr1, %1; mov %%dr2, %2; mov %%dr3, %3"
                 : "=r"(d.dr[0]), "=r"(d.dr[1]), "=r"(d.dr[2]), "=r"(d.dr[3]));
    return d;
  };
  EnableVtl1();
  Tally tally;
  OnEachCpu([&] {
    constexpr Debug kHere{{0x1111'0000, 0x2222'0000, 0x3333'0000, 0x4444'0000}}, kThere{{0x10, 0x20, 0x30, 0x40}};
    load(kHere);
    write_cr2(0xabcd'0123'4567);
    InVtl1([&] {
      tally.Equal(ReadCr2(), 0xabcd'0123'4567, "CR2 of VTL0");
      const Debug got = store();
      for (uint32_t i = 0; i < 4; ++i) tally.Equal(got.dr[i], kHere.dr[i], "breakpoints of VTL0");
      load(kThere);
      write_cr2(0x77);
    });
    tally.Equal(ReadCr2(), 0x77, "CR2 of VTL1");
    const Debug got = store();
    for (uint32_t i = 0; i < 4; ++i) tally.Equal(got.dr[i], kThere.dr[i], "breakpoints of VTL1");
    load({});
  });
  EXPECT_TRUE(tally.ok());
}

TEST(DebugControlIsPrivate) {
  const auto read = [] {
    uint64_t value;
    asm volatile("mov %%dr7, %0" : "=r"(value));
    return value;
  };
  const auto write = [](uint64_t value) { asm volatile("mov %0, %%dr7" : : "r"(value)); };
  constexpr uint64_t kReset = 0x400, kHere = 0xf'0402;  // a data breakpoint, at an address that nobody has
  uint64_t there = 0;
  InVtl1([&] { there = read(); });
  EXPECT_EQ(there, kReset);
  write(kHere);
  InVtl1([&] {
    there = read();
    write(0x401);
  });
  EXPECT_EQ(there, kReset);
  EXPECT_EQ(read(), kHere);
  InVtl1([&] {
    there = read();
    write(kReset);
  });
  EXPECT_EQ(there, 0x401u);
  write(kReset);
}

struct Private {
  uint32_t msr;
  uint64_t here, there;
};
constexpr Private kPrivate[] = {
    {0xc000'0081, 0x0023'0008'0000'0000, 0x001b'0010'0000'0000},  // STAR
    {0xc000'0082, 0xffff'8000'1234'0000, 0x0000'7000'0000'1000},  // LSTAR
    {0xc000'0083, 0x1000, 0x2000},                                // CSTAR
    {0xc000'0084, 0x4'0200, 0x700},                               // SFMASK
    {0xc000'0100, 0x1234'5000, 0xffff'9000'0000'0000},            // FS.BASE
    {0xc000'0102, 0x1111'0000, 0xffff'8888'0000'0000},            // KERNEL_GS_BASE
    {0x174, 0x8, 0x10},                                           // SYSENTER_CS
    {0x175, 0x5000, 0x6000},                                      // SYSENTER_ESP
    {0x176, 0x7000, 0x8000},                                      // SYSENTER_EIP
    {0x277, 0x0007'0406'0007'0406, 0x0007'0406'0007'0401},        // PAT
    {vmm::kHvMsrSint0 + 5, 0x1'0055, 0x1'0066},
    {vmm::kHvMsrStimer0Config + 3, 0x1234, 0x5678},  // COUNT of timer 1, off
};

TEST(PrivateMsrsAreEachLevelsOwn) {
  Tally tally;
  OnEachCpu([&] {
    for (const Private& row : kPrivate) {
      const uint64_t before = ReadMsr(row.msr);
      uint64_t before_there = 0, there = 0;
      WriteMsr(row.msr, row.here);
      InVtl1([&] {
        before_there = ReadMsr(row.msr);
        WriteMsr(row.msr, row.there);
      });
      tally.Equal(ReadMsr(row.msr), row.here, "VTL0's");
      InVtl1([&] {
        there = ReadMsr(row.msr);
        WriteMsr(row.msr, before_there);
      });
      tally.Equal(there, row.there, "VTL1's");
      WriteMsr(row.msr, before);
    }
  });
  EXPECT_TRUE(tally.ok());
}

TEST(TheInterfacesRegistersAreEachLevelsOwn) {
  const uint64_t page = ReadMsr(vmm::kHvMsrHypercall);
  InVtl1([&] {
    EXPECT_EQ(ReadMsr(vmm::kHvMsrGuestOsId), kOurGuestOsId);
    EXPECT_NE(ReadMsr(vmm::kHvMsrHypercall), page);
    EXPECT_EQ(ReadMsr(vmm::kHvMsrHypercall), HypercallPage() | vmm::kHvOverlayEnable);
    EXPECT_EQ(ReadMsr(vmm::kHvMsrSimp), GpaOf(SecureMessagePage(0)) | vmm::kHvOverlayEnable);
    EXPECT_EQ(ReadMsr(vmm::kHvMsrVpAssistPage), GpaOf(&AssistPage(0)) | vmm::kHvOverlayEnable);
    WriteMsr(vmm::kHvMsrGuestOsId, kOurGuestOsId + 1);
  });
  EXPECT_EQ(ReadMsr(vmm::kHvMsrGuestOsId), kOurGuestOsId);
  EXPECT_EQ(ReadMsr(vmm::kHvMsrVpAssistPage), 0u);
  EXPECT_EQ(ReadMsr(vmm::kHvMsrSint0), vmm::kHvSintReset);
  InVtl1([] { WriteMsr(vmm::kHvMsrGuestOsId, kOurGuestOsId); });
}

TEST(ControlRegistersAndTablesArePrivate) {
  constexpr uint64_t kTaskSwitched = 8, kTimeStampDisable = 4;
  struct [[gnu::packed]] Table {
    uint16_t limit;
    uint64_t base;
  } idt, gdt, secure_idt, secure_gdt;
  asm volatile("sidt %0; sgdt %1" : "=m"(idt), "=m"(gdt));
  const uint64_t cr3 = ReadCr3(), cr4 = ReadCr4();
  WriteCr4(cr4 | kTimeStampDisable);
  InVtl1([&] {
    asm volatile("sidt %0; sgdt %1" : "=m"(secure_idt), "=m"(secure_gdt));
    EXPECT_NE(ReadCr3(), cr3);
    EXPECT_EQ(ReadCr4() & kTimeStampDisable, 0u);
    WriteCr0(ReadCr0() | kTaskSwitched);
    WriteCr8(5);
  });
  EXPECT_NE(idt.base, secure_idt.base);
  EXPECT_NE(gdt.base, secure_gdt.base);
  EXPECT_EQ(ReadCr0() & kTaskSwitched, 0u);
  EXPECT_EQ(ReadCr4() & kTimeStampDisable, kTimeStampDisable);
  EXPECT_EQ(ReadCr3(), cr3);
  EXPECT_EQ(ReadCr8(), 0u);
  WriteCr4(cr4);
  InVtl1([&] {
    EXPECT_EQ(ReadCr0() & kTaskSwitched, kTaskSwitched);
    EXPECT_EQ(ReadCr8(), 5u);
    WriteCr0(ReadCr0() & ~kTaskSwitched);
    WriteCr8(0);
  });
}

TEST(TimeIsOneForBothLevels) {
  Tally tally;
  uint64_t last = ReadMsr(vmm::kHvMsrTimeRefCount);
  const auto look = [&] {
    const uint64_t now = ReadMsr(vmm::kHvMsrTimeRefCount);
    tally.True(now >= last, "never back");
    last = now;
  };
  for (uint32_t round = 0; round < 8; ++round) {
    look();
    InVtl1(look);
  }
  EXPECT_TRUE(tally.ok());
}

TEST(FaultsAreTheLevelsOwn) {
  InVtl1([] {
    EXPECT_FAULT(kUndefinedOpcode, asm volatile("ud2"));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(vmm::kHvMsrVpIndex, 0));
  });
  EXPECT_FAULT(kUndefinedOpcode, asm volatile("ud2"));
}

}  // namespace
}  // namespace guest
