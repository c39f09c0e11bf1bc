#include "devices/hyperv/hypercall/initial_vp_context.h"

#include <cstdint>
#include <functional>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/hypercall/vp_context_for_test.h"

namespace vmm {
namespace {

using Spoil = std::function<void(HvInitialVpContext&)>;

struct Case {
  const char* what;
  Spoil spoil;
};

constexpr uint64_t Bit(unsigned bit) { return uint64_t{1} << bit; }

TEST(InitialVpContextTest, PassesLongModeAndRealMode) {
  EXPECT_TRUE(CheckInitialVpContext(LongModeContext()));
  EXPECT_TRUE(CheckInitialVpContext(RealModeContext()));
}

TEST(InitialVpContextTest, PassesProtectedModeWithoutPaging) {
  HvInitialVpContext c = RealModeContext();
  c.cr0 = 0x11;
  c.cs = {.limit = 0xffff'ffff, .selector = 8, .attributes = 0xc09b};
  c.rip = 0xffff'fff0;
  EXPECT_TRUE(CheckInitialVpContext(c));
  // A 16-bit busy task will do here.
  c.tr.attributes = 0x83;
  EXPECT_TRUE(CheckInitialVpContext(c));
}

TEST(InitialVpContextTest, PassesCompatibilityModeAndFiveLevels) {
  HvInitialVpContext c = LongModeContext();
  c.cs.attributes = 0xc09b;
  c.rip = 0xffff'0000;
  EXPECT_TRUE(CheckInitialVpContext(c));
  c = LongModeContext();
  c.rip = 0xff00'0000'0000'0000;
  EXPECT_FALSE(CheckInitialVpContext(c));
  c.cr4 |= Bit(12);
  EXPECT_TRUE(CheckInitialVpContext(c));
}

TEST(InitialVpContextTest, SegmentsThatAreNotPresentMayHoldAnything) {
  HvInitialVpContext c = LongModeContext();
  for (HvSegmentRegister* const segment : {&c.ds, &c.es, &c.ss}) {
    *segment = {.base = 0x1234'5678'9abc'def0, .limit = 0xabc0'0000, .selector = 3, .attributes = 0x0013};
  }
  c.ldtr = {.base = 0x1234'5678'9abc'def0, .limit = 0xabc0'0000, .selector = 3, .attributes = 0x0013};
  EXPECT_TRUE(CheckInitialVpContext(c));
}

TEST(InitialVpContextTest, RefusesModesThatThereAreNot) {
  const std::vector<Case> cases = {
      {"LMA without LME", [](auto& c) { c.efer &= ~Bit(8); }},
      {"LME and paging without LMA", [](auto& c) { c.efer &= ~Bit(10); }},
      {"LMA without paging", [](auto& c) { c.cr0 &= ~Bit(31); }},
      {"paging without protection", [](auto& c) { c.cr0 &= ~Bit(0); }},
      {"long mode without PAE", [](auto& c) { c.cr4 &= ~Bit(5); }},
      {"not write-through without cache disable", [](auto& c) { c.cr0 |= Bit(29); }},
      {"CR0 above 31", [](auto& c) { c.cr0 |= Bit(32); }},
      {"CR4 above 31", [](auto& c) { c.cr4 |= Bit(63); }},
      {"CR3 above any address", [](auto& c) { c.cr3 |= Bit(52); }},
      {"EFER bit 1", [](auto& c) { c.efer |= Bit(1); }},
      {"EFER bit 16", [](auto& c) { c.efer |= Bit(16); }},
      {"RFLAGS bit 1 clear", [](auto& c) { c.rflags = 0; }},
      {"RFLAGS bit 3", [](auto& c) { c.rflags |= Bit(3); }},
      {"RFLAGS bit 5", [](auto& c) { c.rflags |= Bit(5); }},
      {"RFLAGS bit 15", [](auto& c) { c.rflags |= Bit(15); }},
      {"RFLAGS bit 22", [](auto& c) { c.rflags |= Bit(22); }},
      {"RFLAGS bit 63", [](auto& c) { c.rflags |= Bit(63); }},
      {"virtual-8086 in long mode", [](auto& c) { c.rflags |= Bit(17); }},
  };
  for (const Case& test : cases) {
    HvInitialVpContext c = LongModeContext();
    test.spoil(c);
    EXPECT_FALSE(CheckInitialVpContext(c)) << test.what;
  }
  HvInitialVpContext real = RealModeContext();
  real.cr4 = Bit(17);
  EXPECT_FALSE(CheckInitialVpContext(real)) << "PCID outside long mode";
  real = RealModeContext();
  real.rflags |= Bit(17);
  EXPECT_FALSE(CheckInitialVpContext(real)) << "virtual-8086 in real mode";
  real = RealModeContext();
  real.cs.attributes |= 1 << 13;
  EXPECT_FALSE(CheckInitialVpContext(real)) << "64-bit code outside long mode";
  real = RealModeContext();
  real.rip = Bit(32);
  EXPECT_FALSE(CheckInitialVpContext(real)) << "RIP above 4 GiB outside 64-bit code";
}

TEST(InitialVpContextTest, RefusesSegmentsThatNoDescriptorGives) {
  const std::vector<Case> cases = {
      {"no code", [](auto& c) { c.cs.attributes &= static_cast<uint16_t>(~0x80); }},
      {"code of two widths", [](auto& c) { c.cs.attributes |= 1 << 14; }},
      {"code above 4 GiB", [](auto& c) { c.cs.base = Bit(32); }},
      {"data above 4 GiB", [](auto& c) { c.ds.base = Bit(32); }},
      {"stack above 4 GiB", [](auto& c) { c.ss.base = Bit(63); }},
      {"a system segment as data", [](auto& c) { c.es.attributes &= static_cast<uint16_t>(~0x10); }},
      {"reserved attributes of CS", [](auto& c) { c.cs.attributes |= 0x100; }},
      {"reserved attributes of GS", [](auto& c) { c.gs.attributes |= 0x800; }},
      {"reserved attributes of TR", [](auto& c) { c.tr.attributes |= 0x100; }},
      {"reserved attributes of LDTR", [](auto& c) { c.ldtr.attributes |= 0x100; }},
      {"large limit in bytes", [](auto& c) { c.fs.attributes &= 0x7fff; }},
      {"limit in pages not up to the page's end", [](auto& c) { c.fs.limit = 0xffff'fffe; }},
      {"FS base not canonical", [](auto& c) { c.fs.base = Bit(47); }},
      {"GS base not canonical", [](auto& c) { c.gs.base = Bit(63); }},
      {"TR base not canonical", [](auto& c) { c.tr.base = Bit(62); }},
      {"no task", [](auto& c) { c.tr = {}; }},
      {"an idle task", [](auto& c) { c.tr.attributes = 0x89; }},
      {"a 16-bit task in long mode", [](auto& c) { c.tr.attributes = 0x83; }},
      {"a data segment as task", [](auto& c) { c.tr.attributes = 0x9b; }},
      {"a task as LDT", [](auto& c) { c.ldtr = c.tr; }},
      {"LDT base not canonical", [](auto& c) { c.ldtr = {.base = Bit(50), .limit = 7, .attributes = 0x82}; }},
      {"IDT base not canonical", [](auto& c) { c.idtr.base = Bit(55); }},
      {"GDT base not canonical", [](auto& c) { c.gdtr.base = Bit(55); }},
      {"RIP not canonical", [](auto& c) { c.rip = 0x8000'0000'0000; }},
  };
  for (const Case& test : cases) {
    HvInitialVpContext c = LongModeContext();
    test.spoil(c);
    EXPECT_FALSE(CheckInitialVpContext(c)) << test.what;
  }
}

TEST(InitialVpContextTest, PatHoldsMemoryTypes) {
  for (unsigned entry = 0; entry < 8; ++entry) {
    for (unsigned type = 0; type < 256; ++type) {
      HvInitialVpContext c = LongModeContext();
      c.pat = (c.pat & ~(uint64_t{0xff} << (entry * 8))) | uint64_t{type} << (entry * 8);
      const bool known = type <= 1 || (type >= 4 && type <= 7);
      EXPECT_EQ(CheckInitialVpContext(c), known) << entry << " " << type;
    }
  }
}

}  // namespace
}  // namespace vmm
