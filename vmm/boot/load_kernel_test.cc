#include "vmm/boot/load_kernel.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "memory/guest_ram.h"
#include "vmm/boot/boot_layout.h"
#include "vmm/boot/elf_layout.h"
#include "vmm/boot/fake_images.h"
#include "vmm/boot/linux_boot_layout.h"
#include "vmm/boot/pvh_layout.h"

namespace vmm {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;

class LoadKernelTest : public testing::Test {
 protected:
  void SetUp() override { MakeMachine(16 * kMiB); }

  void MakeMachine(uint64_t ram_bytes) {
    ASSERT_OK_AND_ASSIGN(layout_, MemoryLayout::Create(ram_bytes));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = ram_bytes}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, *layout_));
  }
  absl::StatusOr<LoadedKernel> Load(const ImageBytes& image) {
    const OwnedFd fd = MakeImageFile(image);
    return LoadKernel(fd.get(), "x", *memory_, *layout_, options_);
  }
  absl::StatusOr<LoadedKernel> Load(const FakeBzImage& image) { return Load(image.Build()); }
  absl::StatusOr<LoadedKernel> Load(const FakeElf& image) { return Load(image.Build()); }
  void GiveInitramfs(uint64_t bytes) {
    initramfs_ = MakeImageFile(ImageBytes(bytes, std::byte{0x42}));
    options_.initramfs_fd = initramfs_.get();
    options_.initramfs_name = "i";
  }
  template <typename T>
  T At(Gpa gpa) const {
    T value{};
    EXPECT_TRUE(memory_->ReadObject(gpa, value));
    return value;
  }
  std::string TextAt(uint64_t address) const {
    std::string text;
    for (Gpa at{address}; const char c = At<char>(at); at = at + 1) text += c;
    return text;
  }
  // Whether all of it has that value.
  bool Holds(Gpa gpa, uint64_t bytes, std::byte value) const {
    const std::byte* const host = memory_->UnsafeHost(gpa, bytes);
    return host != nullptr && std::all_of(host, host + bytes, [value](std::byte b) { return b == value; });
  }

  std::optional<MemoryLayout> layout_;
  std::unique_ptr<GuestMemory> memory_;
  OwnedFd initramfs_;
  LoadOptions options_;
};

using BzImageTest = LoadKernelTest;
using ElfPvhTest = LoadKernelTest;

// --- The format, and the file itself

TEST_F(LoadKernelTest, RefusesWhatIsNoKernel) {
  EXPECT_THAT(Load(ImageBytes{}), StatusIs(kInvalid, "load kernel 'x': the magic is 4 bytes at offset 0, the file has 0 bytes"));
  EXPECT_THAT(Load(ImageBytes(3)), StatusIs(kInvalid, "the file has 3 bytes"));
  ImageBytes gzip(1000);
  gzip[0] = std::byte{0x1f};
  gzip[1] = std::byte{0x8b};
  EXPECT_THAT(Load(gzip), StatusIs(kInvalid, "load kernel 'x': neither an ELF file nor a bzImage: 1000 bytes that begin with "
                                             "1f 8b 00 00"));
}

TEST_F(LoadKernelTest, RefusesWhatIsNoRegularFile) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const OwnedFd reader(ends[0]);
  const OwnedFd writer(ends[1]);
  EXPECT_THAT(LoadKernel(reader.get(), "x", *memory_, *layout_, {}), StatusIs(kInvalid, "load kernel 'x': not a regular file"));
  options_.initramfs_fd = reader.get();
  options_.initramfs_name = "i";
  EXPECT_THAT(Load(FakeElf()), StatusIs(kInvalid, "load initramfs 'i': not a regular file"));
  EXPECT_THAT(LoadKernel(-1, "x", *memory_, *layout_, {}),
              StatusIs(absl::ErrnoToStatusCode(EBADF), "load kernel 'x'"));
}

TEST_F(LoadKernelTest, RefusesBadReservedRanges) {
  options_.reserved = {{Gpa(64 * kMiB), kMiB}};
  EXPECT_THAT(Load(FakeElf()), StatusIs(kInvalid, "not RAM"));
}

// --- bzImage

TEST_F(BzImageTest, LoadsAtThePreferredAddress) {
  options_.command_line = "console=ttyS0 panic=1";
  options_.acpi_rsdp = kAcpiTablesBase;
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(FakeBzImage()));
  EXPECT_EQ(loaded.format, ImageFormat::kBzImage);
  EXPECT_EQ(loaded.kernel, Gpa(0x20'0000));
  EXPECT_EQ(loaded.kernel_bytes, 0x10'0000u);
  EXPECT_EQ(loaded.initramfs_bytes, 0u);
  EXPECT_EQ(loaded.entry.mode, CpuMode::kLong64);
  EXPECT_EQ(loaded.entry.rip, 0x20'0200u);
  EXPECT_EQ(loaded.entry.rsi, kZeroPageBase.raw());
  EXPECT_TRUE(Holds(Gpa(0x20'0000), 0x1000, std::byte{0x90}));
  EXPECT_TRUE(Holds(Gpa(0x20'1000), 0x1000, std::byte{0}));

  const auto page = At<LinuxZeroPage>(kZeroPageBase);
  EXPECT_EQ(page.acpi_rsdp_addr, 0xe0000u);
  EXPECT_EQ(page.header.header, kSetupMagic);
  EXPECT_EQ(page.header.version, 0x020f);
  EXPECT_EQ(page.header.type_of_loader, 0xff);
  EXPECT_EQ(page.header.code32_start, 0x20'0000u);
  EXPECT_EQ(page.header.ramdisk_image, 0u);
  EXPECT_EQ(page.header.ramdisk_size, 0u);
  EXPECT_EQ(TextAt(page.header.cmd_line_ptr), "console=ttyS0 panic=1");
  EXPECT_EQ(page.ext_cmd_line_ptr, 0u);
  EXPECT_EQ(page.e820_entries, 5);
  EXPECT_EQ(page.e820_table[2].start, kMiB);
  EXPECT_EQ(page.e820_table[2].bytes, 15 * kMiB);
  EXPECT_EQ(page.e820_table[2].type, 1u);
  EXPECT_EQ(page.e820_table[5].bytes, 0u);
  // The sentinel: were it not zero, Linux would take the page for an old loader's and clear most of it.
  EXPECT_EQ(At<uint8_t>(kZeroPageBase + 0x1ef), 0);
}

TEST_F(BzImageTest, WhatAnEarlierLoadLeftIsGone) {
  options_.command_line = "a long command line of an earlier start";
  GiveInitramfs(100);
  ASSERT_OK(Load(FakeBzImage()));
  options_ = {};
  ASSERT_OK(Load(FakeBzImage()));
  const auto page = At<LinuxZeroPage>(kZeroPageBase);
  EXPECT_EQ(page.header.ramdisk_size, 0u);
  EXPECT_EQ(page.acpi_rsdp_addr, 0u);
  EXPECT_EQ(TextAt(page.header.cmd_line_ptr), "");
}

TEST_F(BzImageTest, OnlyTheHeadersOwnLengthIsCopied) {
  FakeBzImage image;
  std::memset(image.header.later, 0xee, sizeof(image.header.later));
  ASSERT_OK(Load(image));
  const auto page = At<LinuxZeroPage>(kZeroPageBase);
  EXPECT_EQ(page.header.later[3], 0xee);  // 0x202 + 0x6a = 0x26c
  EXPECT_EQ(page.header.later[4], 0);
}

TEST_F(BzImageTest, ZeroSetupSectorsMeanFour) {
  FakeBzImage image;
  image.header.setup_sects = 0;
  ASSERT_OK(Load(image));
  EXPECT_TRUE(Holds(Gpa(0x20'0000), 0x1000, std::byte{0x90}));
}

TEST_F(BzImageTest, AppendedDataIsIgnored) {
  FakeBzImage image;
  image.kernel_bytes = 0x1100;  // a signature, say
  ASSERT_OK(Load(image));
  EXPECT_TRUE(Holds(Gpa(0x20'1000), 0x100, std::byte{0}));
}

TEST_F(BzImageTest, RelocatesWhereThePreferredPlaceIsTaken) {
  FakeBzImage image;
  image.header.pref_address = 0x1000'0000;  // past RAM
  ASSERT_OK_AND_ASSIGN(LoadedKernel loaded, Load(image));
  EXPECT_EQ(loaded.kernel, Gpa(0x20'0000));
  options_.reserved = {{Gpa(0x20'0000), kPageBytes}};
  ASSERT_OK_AND_ASSIGN(loaded, Load(image));
  EXPECT_EQ(loaded.kernel, Gpa(0x40'0000));
  EXPECT_EQ(loaded.entry.rip, 0x40'0200u);
  EXPECT_EQ(At<LinuxZeroPage>(kZeroPageBase).header.code32_start, 0x40'0000u);
}

TEST_F(BzImageTest, RefusesToRelocateAKernelThatCannot) {
  FakeBzImage image;
  image.header.relocatable_kernel = 0;
  ASSERT_OK(Load(image));
  image.header.pref_address = 0x1000'0000;
  EXPECT_THAT(Load(image), StatusIs(kExhausted, "load kernel 'x': it is not relocatable and needs 1048576 bytes at 0x10000000, "
                                                "which are not all free RAM"));
  image.header.pref_address = 0x8'0000;  // over our own structures
  EXPECT_THAT(Load(image), StatusIs(kExhausted, "not relocatable"));
  image.header.pref_address = UINT64_MAX - 0xfff;
  EXPECT_THAT(Load(image), StatusIs(kExhausted, "not relocatable"));
}

TEST_F(BzImageTest, RefusesWhatNeedsMoreMemoryThanThereIs) {
  FakeBzImage image;
  image.header.init_size = 16 * kMiB;
  EXPECT_THAT(Load(image), StatusIs(kExhausted, "load kernel 'x': it needs 16777216 bytes of guest RAM aligned to 2097152, the "
                                                "largest free part below the MMIO hole has 15728640 bytes"));
  image.header.init_size = 14 * kMiB;
  EXPECT_OK(Load(image));
  image.header.init_size = 14 * kMiB + 1;
  EXPECT_THAT(Load(image), StatusIs(kExhausted, "14680065 bytes"));
  image.header.init_size = UINT32_MAX;
  image.header.kernel_alignment = 0x8000'0000;
  EXPECT_THAT(Load(image), StatusIs(kExhausted, "4294967295 bytes"));
}

TEST_F(BzImageTest, RefusesTruncatedFiles) {
  const ImageBytes whole = FakeBzImage().Build();
  const auto first = [&whole](size_t bytes) { return ImageBytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(bytes)); };
  EXPECT_THAT(Load(first(0x205)), StatusIs(kInvalid, "neither an ELF file nor a bzImage: 517 bytes"));
  EXPECT_THAT(Load(first(0x206)), StatusIs(kInvalid, "the setup header is 119 bytes at offset 497, the file has 518 bytes"));
  EXPECT_THAT(Load(first(0x267)), StatusIs(kInvalid, "the setup header is 119 bytes at offset 497, the file has 615 bytes"));
  EXPECT_THAT(Load(first(0x268)), StatusIs(kInvalid, "the setup header is 4 bytes at offset 616, the file has 616 bytes"));
  EXPECT_THAT(Load(first(0xa00)), StatusIs(kInvalid, "load kernel 'x': setup header says 4 setup sectors, the file has 2560 bytes"));
  EXPECT_THAT(Load(first(whole.size() - 1)),
              StatusIs(kInvalid, "setup header says 4096 bytes of kernel at offset 2560, the file has 6655 bytes"));
}

TEST_F(BzImageTest, RefusesBadHeaders) {
  const struct {
    void (*spoil)(LinuxSetupHeader& header);
    const char* why;
  } kCases[] = {
      {[](auto& h) { h.boot_flag = 0x1234; }, "no setup header: boot flag 0x1234, magic 0x53726448"},
      {[](auto& h) { h.version = 0x020b; }, "boot protocol 2.11, 2.12 is the oldest loaded"},
      {[](auto& h) { h.loadflags = 0; }, "a zImage"},
      {[](auto& h) { h.xloadflags = 0xfffe; }, "no 64-bit entry point (xloadflags 0xfffe)"},
      {[](auto& h) { h.jump_bytes = 0x65; }, "the setup header ends at 615, boot protocol 2.12 and later end between 616 and 656"},
      {[](auto& h) { h.jump_bytes = 0x8f; }, "the setup header ends at 657"},
      {[](auto& h) { h.setup_sects = 64; }, "setup header says 64 setup sectors, the file has 6656 bytes"},
      {[](auto& h) { h.syssize = 0x101; }, "setup header says 4112 bytes of kernel at offset 2560, the file has 6656 bytes"},
      {[](auto& h) { h.syssize = 0xffff'ffff; }, "setup header says 68719476720 bytes of kernel"},
      {[](auto& h) { h.syssize = 0x20; }, "setup header says 512 bytes of kernel, its entry point is at byte 512"},
      {[](auto& h) { h.syssize = 0; }, "setup header says 0 bytes of kernel"},
      {[](auto& h) { h.init_size = 0xfff; }, "setup header says 4096 bytes of kernel start in 4095 bytes of memory"},
      {[](auto& h) { h.kernel_alignment = 0; }, "kernel alignment 0, which is no power of two"},
      {[](auto& h) { h.kernel_alignment = 0x30'0000; }, "kernel alignment 3145728, which is no power of two"},
  };
  for (const auto& c : kCases) {
    FakeBzImage image;
    c.spoil(image.header);
    EXPECT_THAT(Load(image), StatusIs(kInvalid, absl::StrCat("load kernel 'x': ")));
    EXPECT_THAT(Load(image), StatusIs(kInvalid, c.why));
  }
}

TEST_F(BzImageTest, TheCommandLineHasTheKernelsLimit) {
  FakeBzImage image;
  image.header.cmdline_size = 10;
  options_.command_line = std::string(10, 'a');
  ASSERT_OK(Load(image));
  EXPECT_EQ(TextAt(kCommandLineBase.raw()), std::string(10, 'a'));
  options_.command_line = std::string(11, 'a');
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "load kernel 'x': the command line has 11 bytes, the kernel takes 10"));
  image.header.cmdline_size = UINT32_MAX;
  options_.command_line = std::string(2047, 'a');
  EXPECT_OK(Load(image));
  options_.command_line = std::string(2048, 'a');
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "the command line has 2048 bytes, the kernel takes 2047"));
  options_.command_line = std::string("a\0b", 3);
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "the command line has a NUL at byte 1"));
}

TEST_F(BzImageTest, TheInitramfsIsPageAlignedAtTheTopOfRam) {
  GiveInitramfs(0x1801);
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(FakeBzImage()));
  EXPECT_EQ(loaded.initramfs, Gpa(16 * kMiB - 0x2000));
  EXPECT_EQ(loaded.initramfs_bytes, 0x1801u);
  EXPECT_TRUE(Holds(loaded.initramfs, 0x1801, std::byte{0x42}));
  EXPECT_TRUE(Holds(loaded.initramfs + 0x1801, 0x2000 - 0x1801, std::byte{0}));
  const auto page = At<LinuxZeroPage>(kZeroPageBase);
  EXPECT_EQ(page.header.ramdisk_image, 16 * kMiB - 0x2000);
  EXPECT_EQ(page.header.ramdisk_size, 0x1801u);
  EXPECT_EQ(page.ext_ramdisk_image, 0u);
  EXPECT_EQ(page.ext_ramdisk_size, 0u);
}

TEST_F(BzImageTest, TheInitramfsStaysBelowTheKernelsLimit) {
  FakeBzImage image;
  GiveInitramfs(0x1000);
  image.header.initrd_addr_max = 0x80'0fff;
  ASSERT_OK_AND_ASSIGN(LoadedKernel loaded, Load(image));
  EXPECT_EQ(loaded.initramfs, Gpa(0x80'0000));
  image.header.initrd_addr_max = 0x80'0ffe;
  ASSERT_OK_AND_ASSIGN(loaded, Load(image));
  EXPECT_EQ(loaded.initramfs, Gpa(0x7f'f000));
  image.header.initrd_addr_max = 0xffff'ffff;
  ASSERT_OK_AND_ASSIGN(loaded, Load(image));
  EXPECT_EQ(loaded.initramfs, Gpa(16 * kMiB - 0x1000));
}

TEST_F(BzImageTest, TheInitramfsNeverOverlapsWhatTheKernelNeeds) {
  FakeBzImage image;
  image.header.init_size = 13 * kMiB;  // 2 to 15 MiB, 1 MiB above
  GiveInitramfs(kMiB);
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(image));
  EXPECT_EQ(loaded.initramfs, Gpa(15 * kMiB));
  GiveInitramfs(kMiB + 1);
  EXPECT_THAT(Load(image), StatusIs(kExhausted, "load initramfs 'i': it has 1048577 bytes, the largest free part of guest RAM "
                                                "below 0x80000000 beside the kernel has 1048576 bytes"));
}

TEST_F(BzImageTest, TheInitramfsAvoidsReservedRanges) {
  options_.reserved = {{Gpa(15 * kMiB), kMiB}};
  GiveInitramfs(0x1000);
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(FakeBzImage()));
  EXPECT_EQ(loaded.initramfs, Gpa(15 * kMiB - 0x1000));
  const auto page = At<LinuxZeroPage>(kZeroPageBase);
  EXPECT_EQ(page.e820_entries, 6);
  EXPECT_EQ(page.e820_table[3].start, 15 * kMiB);
  EXPECT_EQ(page.e820_table[3].type, 2u);
}

TEST_F(BzImageTest, RefusesAnEmptyInitramfs) {
  GiveInitramfs(0);
  EXPECT_THAT(Load(FakeBzImage()), StatusIs(kInvalid, "load initramfs 'i': the file is empty"));
}

TEST_F(BzImageTest, AMachineWithRamAboveTheHoleKeepsTheInitramfsBelow) {
  MakeMachine(4 * kGiB);
  FakeBzImage image;
  image.header.initrd_addr_max = 0xffff'ffff;
  GiveInitramfs(0x1000);
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(image));
  EXPECT_EQ(loaded.initramfs, Gpa(3 * kGiB - 0x1000));
}

TEST_F(BzImageTest, AOneMegabyteMachineIsTooSmall) {
  MakeMachine(kMiB);
  EXPECT_THAT(Load(FakeBzImage()), StatusIs(kExhausted, "the largest free part below the MMIO hole has 0 bytes"));
}

// --- ELF with PVH

TEST_F(ElfPvhTest, LoadsSegmentsAndStartInfo) {
  ASSERT_TRUE(memory_->Fill(Gpa(kMiB), std::byte{0xcc}, 4 * kMiB));
  ASSERT_TRUE(memory_->Fill(kPvhStartInfoBase, std::byte{0xcc}, kPvhStartInfoBytes));
  options_.command_line = "quiet";
  options_.acpi_rsdp = kAcpiTablesBase;
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(FakeElf()));
  EXPECT_EQ(loaded.format, ImageFormat::kElfPvh);
  EXPECT_EQ(loaded.kernel, Gpa(0x20'0000));
  EXPECT_EQ(loaded.kernel_bytes, 0x1100u);
  EXPECT_EQ(loaded.entry.mode, CpuMode::kProtected32);
  EXPECT_EQ(loaded.entry.rip, 0x20'0010u);
  EXPECT_EQ(loaded.entry.rbx, kPvhStartInfoBase.raw());
  EXPECT_TRUE(Holds(Gpa(0x20'0000), 0x100, std::byte{0x90}));
  EXPECT_TRUE(Holds(Gpa(0x20'0100), 0x1000, std::byte{0}));
  EXPECT_TRUE(Holds(Gpa(0x20'1100), 0x1000, std::byte{0xcc}));
  EXPECT_TRUE(Holds(Gpa(0x1f'f000), 0x1000, std::byte{0xcc}));

  const auto info = At<PvhStartInfo>(kPvhStartInfoBase);
  EXPECT_EQ(info.magic, 0x336ec578u);
  EXPECT_EQ(info.version, 1u);
  EXPECT_EQ(info.flags, 0u);
  EXPECT_EQ(info.module_count, 0u);
  EXPECT_EQ(info.module_list, 0u);
  EXPECT_EQ(TextAt(info.command_line), "quiet");
  EXPECT_EQ(info.acpi_rsdp, 0xe0000u);
  ASSERT_EQ(info.memory_map_entries, 5u);
  const auto ram = At<PvhMemoryMapEntry>(Gpa(info.memory_map) + 2 * sizeof(PvhMemoryMapEntry));
  EXPECT_EQ(ram.start, kMiB);
  EXPECT_EQ(ram.bytes, 15 * kMiB);
  EXPECT_EQ(ram.type, 1u);
}

TEST_F(ElfPvhTest, TheInitramfsIsTheOnlyModule) {
  GiveInitramfs(0x1801);
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(FakeElf()));
  EXPECT_EQ(loaded.initramfs, Gpa(16 * kMiB - 0x2000));
  const auto info = At<PvhStartInfo>(kPvhStartInfoBase);
  ASSERT_EQ(info.module_count, 1u);
  const auto module = At<PvhModule>(Gpa(info.module_list));
  EXPECT_EQ(module.address, 16 * kMiB - 0x2000);
  EXPECT_EQ(module.bytes, 0x1801u);
  EXPECT_EQ(module.command_line, 0u);
  EXPECT_TRUE(Holds(loaded.initramfs, 0x1801, std::byte{0x42}));
}

TEST_F(ElfPvhTest, TheNoteMayHoldEightBytes) {
  FakeElf image;
  image.note.descriptor_bytes = 8;
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(image));
  EXPECT_EQ(loaded.entry.rip, 0x20'0010u);
}

TEST_F(ElfPvhTest, RefusesAKernelWithoutTheNote) {
  const char kWhy[] = "load kernel 'x': an ELF file without the PVH entry note (Xen, type 18): built without CONFIG_PVH?";
  FakeElf image;
  image.header.program_header_count = 1;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, kWhy));
  image = {};
  image.note.type = 17;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, kWhy));
  image = {};
  image.note_name[0] = 'Y';
  EXPECT_THAT(Load(image), StatusIs(kInvalid, kWhy));
}

TEST_F(ElfPvhTest, RefusesBadNotes) {
  FakeElf image;
  image.note.descriptor_bytes = 5;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "the PVH note holds 5 bytes, 4 or 8 make an address"));
  image.note.descriptor_bytes = 0x100;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "the ELF note at offset 536 has a name of 4 and a descriptor of 256 bytes, its "
                                              "segment ends at 576"));
  image.note.descriptor_bytes = UINT32_MAX;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "a descriptor of 4294967295 bytes"));
  image.note = {.name_bytes = UINT32_MAX, .descriptor_bytes = 4, .type = 18};
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "a name of 4294967295"));
  image = {};
  image.segments[1].file_bytes = 65537;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "ELF notes of 65537 bytes, at most 65536 are read"));
  image.segments[1].file_bytes = 65536;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "an ELF note segment is 65536 bytes at offset 512, the file has 832 bytes"));
}

TEST_F(ElfPvhTest, RefusesAnEntryThatIsNotLoaded) {
  for (const uint64_t entry : {0x1f'ffffull, 0x20'0100ull, 0x0ull, 0xffff'ffffull}) {
    FakeElf image;
    image.entry = entry;
    EXPECT_THAT(Load(image), StatusIs(kInvalid, absl::StrCat("the PVH entry 0x", absl::Hex(entry),
                                                             " is in no ELF segment's file contents")));
  }
}

TEST_F(ElfPvhTest, RefusesBadHeaders) {
  const struct {
    void (*spoil)(FakeElf& image);
    const char* why;
  } kCases[] = {
      {[](auto& i) { i.header.file_class = 1; }, "ELF class 1, only 64-bit (2) kernels are loaded"},
      {[](auto& i) { i.header.data_encoding = 2; }, "ELF data encoding 2 for machine 62"},
      {[](auto& i) { i.header.machine = 183; }, "ELF data encoding 1 for machine 183"},
      {[](auto& i) { i.header.type = 1; }, "ELF type 1 is no executable"},
      {[](auto& i) { i.header.program_header_bytes = 32; }, "ELF program headers of 32 bytes, the format has 56"},
      {[](auto& i) { i.header.program_header_count = 0; }, "0 ELF program headers, 1 to 128 can be loaded"},
      {[](auto& i) { i.header.program_header_count = 129; }, "129 ELF program headers"},
      {[](auto& i) { i.header.program_header_count = 128; },
       "the ELF program header table is 7168 bytes at offset 64, the file has 832 bytes"},
      {[](auto& i) { i.header.program_header_offset = UINT64_MAX; },
       "the ELF program header table is 112 bytes at offset 18446744073709551615"},
      {[](auto& i) { i.segments[0].file_bytes = 0x1101; }, "ELF segment 0 has 4353 bytes in the file for 4352 in memory"},
      {[](auto& i) { i.segments[0].memory_bytes = 0; }, "ELF segment 0 has 256 bytes in the file for 0 in memory"},
      {[](auto& i) { i.segments[0].file_bytes = 0x101; }, "ELF segment 0 is 257 bytes at offset 576, the file has 832 bytes"},
      {[](auto& i) { i.segments[0].offset = UINT64_MAX - 0x10; }, "ELF segment 0 is 256 bytes at offset 18446744073709551599"},
      {[](auto& i) { i.segments[0].type = 6; }, "no ELF segment is to be loaded"},
      {[](auto& i) { i.segments[0].memory_bytes = i.segments[0].file_bytes = 0; }, "no ELF segment is to be loaded"},
  };
  for (const auto& c : kCases) {
    FakeElf image;
    c.spoil(image);
    EXPECT_THAT(Load(image), StatusIs(kInvalid, "load kernel 'x': "));
    EXPECT_THAT(Load(image), StatusIs(kInvalid, c.why));
  }
}

TEST_F(ElfPvhTest, RefusesATruncatedHeader) {
  const ImageBytes whole = FakeElf().Build();
  EXPECT_THAT(Load(ImageBytes(whole.begin(), whole.begin() + 63)),
              StatusIs(kInvalid, "the ELF header is 64 bytes at offset 0, the file has 63 bytes"));
}

TEST_F(ElfPvhTest, RefusesSegmentsOutsideFreeRam) {
  for (const uint64_t address : std::initializer_list<uint64_t>{0, 0xf'ffff, 16 * kMiB - 0x10ff, 16 * kMiB, kMmioHoleEnd.raw(), UINT64_MAX}) {
    FakeElf image;
    image.segments[0].physical_address = address;
    EXPECT_THAT(Load(image), StatusIs(kExhausted, absl::StrCat("load kernel 'x': ELF segment 0 wants 4352 bytes at 0x",
                                                               absl::Hex(address), ", which are not all free RAM")));
  }
  FakeElf image;
  image.segments[0].memory_bytes = UINT64_MAX;
  EXPECT_THAT(Load(image), StatusIs(kExhausted, "ELF segment 0 wants 18446744073709551615 bytes"));
}

TEST_F(ElfPvhTest, RefusesSegmentsThatOverlap) {
  FakeElf image;
  image.header.program_header_count = 3;
  image.segments.push_back(image.segments[0]);
  image.segments[2].physical_address += 0x10ff;
  EXPECT_THAT(Load(image), StatusIs(kExhausted, "ELF segment 2 wants 4352 bytes at 0x2010ff"));
  image.segments[2].physical_address += 1;
  EXPECT_OK(Load(image));
}

TEST_F(ElfPvhTest, RefusesSegmentsInReservedRanges) {
  options_.reserved = {{Gpa(0x20'1000), kPageBytes}};
  EXPECT_THAT(Load(FakeElf()), StatusIs(kExhausted, "ELF segment 0 wants 4352 bytes at 0x200000"));
}

TEST_F(ElfPvhTest, TheCommandLineIsNeverCutOff) {
  options_.command_line = std::string(2047, 'a');
  EXPECT_OK(Load(FakeElf()));
  options_.command_line = std::string(2048, 'a');
  EXPECT_THAT(Load(FakeElf()), StatusIs(kInvalid, "the command line has 2048 bytes, the kernel takes 2047"));
}

}  // namespace
}  // namespace vmm
