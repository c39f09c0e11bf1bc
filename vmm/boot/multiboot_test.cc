#include "vmm/boot/multiboot_layout.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "vmm/boot/boot_entry.h"
#include "vmm/boot/boot_layout.h"
#include "vmm/boot/boot_memory_map.h"
#include "vmm/boot/elf_layout.h"
#include "vmm/boot/fake_images.h"
#include "vmm/boot/load_kernel.h"
#include "vmm/boot/load_request.h"

namespace vmm {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;
constexpr uint64_t kRamBytes = 16 * kMiB;

class MultibootTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(layout_, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kRamBytes}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, *layout_));
    options_.multiboot = true;
  }
  absl::StatusOr<LoadedKernel> Load(const ImageBytes& image) {
    const OwnedFd fd = MakeImageFile(image);
    return LoadKernel(fd.get(), "folder/x.elf", *memory_, *layout_, options_);
  }
  absl::StatusOr<LoadedKernel> Load(const FakeMultiboot& image) { return Load(image.Build()); }
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
  bool Holds(Gpa gpa, uint64_t bytes, std::byte value) const {
    const std::byte* const host = memory_->UnsafeHost(gpa, bytes);
    return host != nullptr && std::all_of(host, host + bytes, [value](std::byte b) { return b == value; });
  }

  std::optional<MemoryLayout> layout_;
  std::unique_ptr<GuestMemory> memory_;
  LoadOptions options_;
};

FakeMultiboot WithAddresses() {
  FakeMultiboot image;
  image.header.flags |= kMultibootHasAddresses;
  return image;
}

TEST_F(MultibootTest, LoadsAnElfFileAndEntersItWithTheMagic) {
  ASSERT_TRUE(memory_->Fill(Gpa(FakeMultiboot::kLoadAddress), std::byte{0xee}, 0x2000));
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(FakeMultiboot{}));
  EXPECT_EQ(loaded.format, ImageFormat::kMultiboot);
  EXPECT_EQ(loaded.kernel, Gpa(0x40'0000));
  EXPECT_EQ(loaded.kernel_bytes, 0x1100u);
  EXPECT_EQ(loaded.entry.mode, CpuMode::kProtected32);
  EXPECT_EQ(loaded.entry.rip, 0x40'0020u);
  EXPECT_EQ(loaded.entry.rax, 0x2bad'b002u);
  EXPECT_EQ(loaded.entry.rbx, kMultibootInfoBase.raw());
  EXPECT_EQ(loaded.entry.cr0 & 0x8000'0001u, 1u);
  EXPECT_TRUE(Holds(Gpa(0x40'0020), 0xe0, std::byte{0x90}));
  EXPECT_TRUE(Holds(Gpa(0x40'0100), 0x1000, std::byte{0}));
  EXPECT_TRUE(Holds(Gpa(0x40'1100), 1, std::byte{0xee}));
}

TEST_F(MultibootTest, LoadsByTheHeadersAddressesWhateverTheFileIs) {
  ASSERT_TRUE(memory_->Fill(Gpa(FakeMultiboot::kLoadAddress), std::byte{0xee}, 0x2000));
  FakeMultiboot image = WithAddresses();
  image.elf = {};
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(image));
  EXPECT_EQ(loaded.kernel, Gpa(0x40'0000));
  EXPECT_EQ(loaded.kernel_bytes, 0x1100u);
  EXPECT_EQ(loaded.entry.rip, 0x40'0020u);
  EXPECT_EQ(At<uint32_t>(Gpa(0x40'0000)), kMultibootHeaderMagic);
  EXPECT_TRUE(Holds(Gpa(0x40'0020), 0xe0, std::byte{0x90}));
  EXPECT_TRUE(Holds(Gpa(0x40'0100), 0x1000, std::byte{0}));
}

TEST_F(MultibootTest, WithoutEndsTheFileIsLoadedToItsEndAndThereIsNoBss) {
  FakeMultiboot image = WithAddresses();
  image.header.load_end_address = 0;
  image.header.bss_end_address = 0;
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(image));
  EXPECT_EQ(loaded.kernel_bytes, 0x100u);
}

TEST_F(MultibootTest, TheImageMayBeginBeforeItsHeader) {
  FakeMultiboot image = WithAddresses();
  image.header.header_address = FakeMultiboot::kLoadAddress + FakeMultiboot::kCodeOffset;
  image.header.load_end_address = 0;
  ASSERT_OK(Load(image));
  EXPECT_EQ(At<uint32_t>(Gpa(0x40'0100)), kMultibootHeaderMagic);
  EXPECT_EQ(At<uint8_t>(Gpa(0x40'0000)), 0x7f);
}

TEST_F(MultibootTest, InformationHasMemoryMapAndCommandLine) {
  options_.command_line = "a=b only=x";
  ASSERT_OK(Load(FakeMultiboot{}));
  const auto info = At<MultibootInfo>(kMultibootInfoBase);
  EXPECT_EQ(info.flags, 0x45u);
  EXPECT_EQ(info.lower_kib, 639u);
  EXPECT_EQ(info.upper_kib, 15u * 1024);
  EXPECT_EQ(TextAt(info.command_line), "x.elf a=b only=x");
  EXPECT_EQ(info.module_count, 0u);
  EXPECT_EQ(Gpa(info.memory_map), kMultibootMemoryMapBase);
  ASSERT_OK_AND_ASSIGN(const auto map, BuildBootMemoryMap(*layout_, {}));
  ASSERT_EQ(info.memory_map_bytes, map.size() * 24);
  for (size_t i = 0; i < map.size(); ++i) {
    const auto entry = At<MultibootMemoryMapEntry>(kMultibootMemoryMapBase + i * 24);
    EXPECT_EQ(entry.following_bytes, 20u);
    EXPECT_EQ(Gpa(entry.start), map[i].start);
    EXPECT_EQ(uint64_t{entry.bytes}, map[i].bytes);
    EXPECT_EQ(uint32_t{entry.type}, static_cast<uint32_t>(map[i].type));
  }
}

TEST_F(MultibootTest, TheInitramfsIsTheOnlyModule) {
  const OwnedFd module = MakeImageFile(ImageBytes(0x1234, std::byte{0x42}));
  options_.initramfs_fd = module.get();
  options_.initramfs_name = "m";
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(FakeMultiboot{}));
  const auto info = At<MultibootInfo>(kMultibootInfoBase);
  EXPECT_EQ(info.flags, 0x4du);
  ASSERT_EQ(info.module_count, 1u);
  const auto wire = At<MultibootModule>(Gpa(info.modules));
  EXPECT_EQ(Gpa(wire.start), loaded.initramfs);
  EXPECT_EQ(wire.end, wire.start + 0x1234);
  EXPECT_EQ(TextAt(wire.text), "");
  EXPECT_TRUE(Holds(loaded.initramfs, 0x1234, std::byte{0x42}));
}

TEST_F(MultibootTest, TheHeaderIsLookedForInTheFirst8KiBAndMustAddUp) {
  FakeMultiboot image;
  image.header_offset = 8192 - 12;
  EXPECT_OK(Load(image));
  image.header_offset = 8192 - 8;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "load kernel 'folder/x.elf': no multiboot header in the first 8192 bytes: the TEST "
                                              "machine starts no other"));
  image.header_offset = FakeMultiboot::kCodeOffset + 2;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "no multiboot header in the first"));
  image = {};
  image.fix_checksum = false;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "no multiboot header in the first 512 bytes"));
  EXPECT_THAT(Load(ImageBytes{}), StatusIs(kInvalid, "no multiboot header in the first 0 bytes"));
  EXPECT_THAT(Load(FakeElf{}.Build()), StatusIs(kInvalid, "no multiboot header"));
}

TEST_F(MultibootTest, AHeaderWithAddressesMustBeComplete) {
  FakeMultiboot image = WithAddresses();
  image.header_offset = 8192 - 28;
  EXPECT_THAT(Load(image), StatusIs(kInvalid, "the multiboot header at offset 8164 is cut off after 28 bytes"));
}

TEST_F(MultibootTest, RefusesWhatTheHeaderRequiresAndNobodyOffers) {
  for (int bit = 2; bit < 16; ++bit) {
    FakeMultiboot image;
    image.header.flags |= 1u << bit;
    EXPECT_THAT(Load(image), StatusIs(kInvalid, absl::StrCat("requires what is not offered (flags 0x", absl::Hex(1u << bit), ")")));
  }
  FakeMultiboot image;
  image.header.flags = 0x8000'0003;
  EXPECT_OK(Load(image));
}

TEST_F(MultibootTest, RefusesBadAddresses) {
  const auto load = [this](auto spoil) {
    FakeMultiboot image = WithAddresses();
    spoil(image.header);
    return Load(image);
  };
  EXPECT_THAT(load([](MultibootHeader& h) { h.header_address = h.load_address - 1; }),
              StatusIs(kInvalid, "the multiboot header at offset 256 cannot be at 0x3fffff of an image that begins at 0x400000"));
  EXPECT_THAT(load([](MultibootHeader& h) { h.header_address = h.load_address + 257; }), StatusIs(kInvalid, "cannot be at"));
  EXPECT_THAT(load([](MultibootHeader& h) { h.load_end_address = h.load_address; }),
              StatusIs(kInvalid, "the multiboot image is 0x400000 to 0x400000, the file has 256 bytes of it"));
  EXPECT_THAT(load([](MultibootHeader& h) { h.load_end_address = h.load_address + 257; }), StatusIs(kInvalid, "the file has 256"));
  EXPECT_THAT(load([](MultibootHeader& h) { h.load_end_address = 0xffff'ffff; }), StatusIs(kInvalid, "the file has 256"));
  EXPECT_THAT(load([](MultibootHeader& h) { h.bss_end_address = h.load_end_address - 1; }),
              StatusIs(kInvalid, "the multiboot bss ends at 0x4000ff, its image at 0x400100"));
  EXPECT_THAT(load([](MultibootHeader& h) { h.entry_address = h.load_address - 1; }),
              StatusIs(kInvalid, "the multiboot entry 0x3fffff is not in the image"));
  EXPECT_THAT(load([](MultibootHeader& h) { h.entry_address = h.load_end_address; }), StatusIs(kInvalid, "is not in the image"));
  EXPECT_THAT(load([](MultibootHeader& h) { h.bss_end_address = 0xffff'ffff; }),
              StatusIs(kExhausted, "it wants 4290772991 bytes at 0x400000, which are not all free RAM"));
  EXPECT_THAT(load([](MultibootHeader& h) {
                h.header_address = h.load_address = 0xffff'ffff;
                h.load_end_address = h.bss_end_address = 0;
                h.entry_address = 0xffff'ffff;
              }),
              StatusIs(kExhausted, "it wants 256 bytes at 0xffffffff"));
}

TEST_F(MultibootTest, RefusesElfFilesThatAreNotOfThe386) {
  const auto load = [this](auto spoil) {
    FakeMultiboot image;
    spoil(image.elf);
    return Load(image);
  };
  EXPECT_THAT(load([](Elf32Header& h) { h.magic[1] = 'X'; }),
              StatusIs(kInvalid, "its multiboot header gives no addresses, and it is not an ELF file"));
  EXPECT_THAT(load([](Elf32Header& h) { h.file_class = 2; }),
              StatusIs(kInvalid, "ELF class 2 for machine 3, a multiboot kernel is of class 1 (32-bit) for 3 (386): objcopy -O "
                                 "elf32-i386 makes one"));
  EXPECT_THAT(load([](Elf32Header& h) { h.machine = 62; }), StatusIs(kInvalid, "for machine 62"));
  EXPECT_THAT(load([](Elf32Header& h) { h.data_encoding = 2; }), StatusIs(kInvalid, "ELF class 1 for machine 3"));
  EXPECT_THAT(load([](Elf32Header& h) { h.type = 3; }), StatusIs(kInvalid, "ELF type 3 is no executable (2)"));
  EXPECT_THAT(load([](Elf32Header& h) { h.program_header_bytes = 33; }), StatusIs(kInvalid, "program headers of 33 bytes"));
  EXPECT_THAT(load([](Elf32Header& h) { h.program_header_count = 0; }), StatusIs(kInvalid, "0 ELF program headers, 1 to 128"));
  EXPECT_THAT(load([](Elf32Header& h) { h.program_header_count = 129; }), StatusIs(kInvalid, "129 ELF program headers"));
  EXPECT_THAT(load([](Elf32Header& h) { h.program_header_offset = 0xffff'ffff; }),
              StatusIs(kInvalid, "the ELF program header table is 32 bytes at offset 4294967295, the file has 512 bytes"));
  EXPECT_THAT(load([](Elf32Header& h) { h.entry = FakeMultiboot::kLoadAddress + 0x100; }),
              StatusIs(kInvalid, "the ELF entry 0x400100 is in no segment's file contents"));
  EXPECT_THAT(load([](Elf32Header& h) { h.entry = FakeMultiboot::kLoadAddress - 1; }), StatusIs(kInvalid, "is in no segment's"));
}

TEST_F(MultibootTest, RefusesBadSegments) {
  const auto load = [this](auto spoil) {
    FakeMultiboot image;
    spoil(image.segments[0]);
    return Load(image);
  };
  EXPECT_THAT(load([](Elf32ProgramHeader& s) { s.type = 2; }), StatusIs(kInvalid, "no ELF segment is to be loaded"));
  EXPECT_THAT(load([](Elf32ProgramHeader& s) { s.memory_bytes = 0xff; }),
              StatusIs(kInvalid, "ELF segment 0 has 256 bytes in the file for 255 in memory"));
  EXPECT_THAT(load([](Elf32ProgramHeader& s) { s.offset = 0x101; }),
              StatusIs(kInvalid, "ELF segment 0 is 256 bytes at offset 257, the file has 512 bytes"));
  EXPECT_THAT(load([](Elf32ProgramHeader& s) { s.offset = 0xffff'ffff; }), StatusIs(kInvalid, "at offset 4294967295"));
  EXPECT_THAT(load([](Elf32ProgramHeader& s) { s.physical_address = 0; }),
              StatusIs(kExhausted, "it wants 4352 bytes at 0x0, which are not all free RAM between 1 MiB and the end of low RAM"));
  EXPECT_THAT(load([](Elf32ProgramHeader& s) { s.physical_address = kRamBytes - 0x1000; }), StatusIs(kExhausted, "at 0xfff000"));
  EXPECT_THAT(load([](Elf32ProgramHeader& s) { s.memory_bytes = 0xffff'ffff; }), StatusIs(kExhausted, "wants 4294967295 bytes"));
}

TEST_F(MultibootTest, RefusesSegmentsThatOverlap) {
  FakeMultiboot image;
  image.elf.program_header_count = 2;
  image.segments.push_back(image.segments[0]);
  image.segments[1].physical_address += 0x10ff;
  EXPECT_THAT(Load(image), StatusIs(kExhausted, "at 0x4010ff"));
  image.segments[1].physical_address += 1;
  EXPECT_OK(Load(image));
}

TEST_F(MultibootTest, TheEntryIsAVirtualAddress) {
  FakeMultiboot image;
  image.segments[0].virtual_address = 0xc000'0000;
  image.elf.entry = 0xc000'0020;
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(image));
  EXPECT_EQ(loaded.entry.rip, 0x40'0020u);
}

TEST_F(MultibootTest, TheCommandLineIsNeverCutOff) {
  options_.command_line = std::string(2047 - 6, 'c');
  ASSERT_OK(Load(FakeMultiboot{}));
  EXPECT_EQ(TextAt(kCommandLineBase.raw()), "x.elf " + options_.command_line);
  options_.command_line += 'c';
  EXPECT_THAT(Load(FakeMultiboot{}), StatusIs(kInvalid, "the command line has 2048 bytes, the kernel takes 2047"));
}

// The machine decides what a file is taken for, not the file.
TEST_F(MultibootTest, OtherMachinesDoNotStartOne) {
  options_.multiboot = false;
  EXPECT_THAT(Load(FakeMultiboot{}), StatusIs(kInvalid, "ELF class 1"));
}

}  // namespace
}  // namespace vmm
