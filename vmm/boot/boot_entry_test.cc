#include "vmm/boot/boot_entry.h"

#include "base/status_matchers.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "vmm/boot/boot_layout.h"

namespace vmm {
namespace {

class BootEntryTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kMiB));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kMiB}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    ASSERT_TRUE(memory_->Fill(Gpa(0), std::byte{0xcc}, kMiB));
  }
  uint64_t Word(Gpa gpa) const {
    uint64_t value = 0;
    EXPECT_TRUE(memory_->ReadObject(gpa, value));
    return value;
  }
  // Walks the tables as the processor does.
  uint64_t Translate(uint64_t cr3, uint64_t address) const {
    const uint64_t pml4e = Word(Gpa(cr3 + (address >> 39) * 8));
    EXPECT_EQ(pml4e & 0xfff, 3u);
    const uint64_t pdpte = Word(Gpa((pml4e & ~0xfffull) + ((address >> 30) & 511) * 8));
    EXPECT_EQ(pdpte & 0xfff, 3u);
    const uint64_t pde = Word(Gpa((pdpte & ~0xfffull) + ((address >> 21) & 511) * 8));
    EXPECT_EQ(pde & 0xfff, 0x83u);
    return (pde & ~0x1f'ffffull) | (address & 0x1f'ffff);
  }
  std::unique_ptr<GuestMemory> memory_;
};

TEST_F(BootEntryTest, Protected32IsFlatWithoutPaging) {
  ASSERT_OK_AND_ASSIGN(const BootEntry entry, WriteBootEntryProtected32(*memory_, Gpa(0x12'3456)));
  EXPECT_EQ(entry.mode, CpuMode::kProtected32);
  EXPECT_EQ(entry.rip, 0x12'3456u);
  EXPECT_EQ(entry.rflags, 2u);
  EXPECT_EQ(entry.cr0, 0x11u);
  EXPECT_EQ(entry.cr4, 0u);
  EXPECT_EQ(entry.efer, 0u);
  EXPECT_EQ(entry.code, (BootSegment{.base = 0, .limit = 0xffff'ffff, .selector = 0x10, .type = 11, .dpl = 0,
                                     .present = true, .s = true, .l = false, .db = true, .g = true}));
  EXPECT_EQ(entry.data, (BootSegment{.base = 0, .limit = 0xffff'ffff, .selector = 0x18, .type = 3, .dpl = 0,
                                     .present = true, .s = true, .l = false, .db = true, .g = true}));
  EXPECT_EQ(entry.task, (BootSegment{.base = 0, .limit = 0x67, .selector = 0x20, .type = 11, .dpl = 0,
                                     .present = true, .s = false, .l = false, .db = false, .g = false}));
  EXPECT_EQ(entry.gdt_base, kBootGdtBase);
  EXPECT_EQ(entry.gdt_limit, 47);
  const uint64_t kGdt[] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067, 0};
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(Word(kBootGdtBase + i * 8), kGdt[i]) << i;
}

TEST_F(BootEntryTest, Long64MapsFourGigabytesToThemselves) {
  ASSERT_OK_AND_ASSIGN(const BootEntry entry, WriteBootEntryLong64(*memory_, Gpa(0x100'0200)));
  EXPECT_EQ(entry.mode, CpuMode::kLong64);
  EXPECT_EQ(entry.rip, 0x100'0200u);
  EXPECT_EQ(entry.cr0, 0x8000'0011u);
  EXPECT_EQ(entry.cr4, 0x20u);
  EXPECT_EQ(entry.efer, 0x500u);
  EXPECT_EQ(entry.cr3, kPageTablesBase.raw());
  EXPECT_EQ(entry.code, (BootSegment{.base = 0, .limit = 0xffff'ffff, .selector = 0x10, .type = 11, .dpl = 0,
                                     .present = true, .s = true, .l = true, .db = false, .g = true}));
  EXPECT_EQ(Word(kBootGdtBase + 0x10), 0x00af9b000000ffffu);
  for (const uint64_t address : {0x0ull, 0x7008ull, 0x1f'ffffull, 0x20'0000ull, 0x3fff'ffffull, 0x4000'0000ull,
                                 0xbfff'f123ull, 0xffff'ffffull}) {
    EXPECT_EQ(Translate(entry.cr3, address), address) << address;
  }
  EXPECT_EQ(Word(kPageTablesBase + 8), 0u);
  EXPECT_EQ(Word(kPageTablesBase + kPageBytes + 4 * 8), 0u);
}

TEST_F(BootEntryTest, NothingElseIsWritten) {
  ASSERT_OK(WriteBootEntryLong64(*memory_, Gpa(0)));
  constexpr uint64_t kUntouched = 0xcccc'cccc'cccc'cccc;
  EXPECT_EQ(Word(Gpa(kBootGdtBase.raw() - 8)), kUntouched);
  EXPECT_EQ(Word(kBootGdtBase + kBootGdtBytes), kUntouched);
  EXPECT_EQ(Word(Gpa(kPageTablesBase.raw() - 8)), kUntouched);
  EXPECT_EQ(Word(kPageTablesBase + kPageTablesBytes), kUntouched);
}

}  // namespace
}  // namespace vmm
