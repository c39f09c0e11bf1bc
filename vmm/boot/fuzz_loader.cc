#include "vmm/boot/fuzz_loader.h"

#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/owned_fd.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "vmm/boot/boot_layout.h"
#include "vmm/boot/fake_images.h"
#include "vmm/boot/load_kernel.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = 4 * kMiB;
constexpr ReservedRange kReservedRange{Gpa(3 * kMiB), kPageBytes};

void Require(bool holds) {
  if (!holds) std::abort();
}

struct Machine {
  MemoryLayout layout = *MemoryLayout::Create(kRamBytes);
  std::unique_ptr<GuestMemory> memory = *GuestMemory::Create(**GuestRam::Create({.bytes = kRamBytes}), layout);
  OwnedFd initramfs = MakeImageFile(ImageBytes(kPageBytes, std::byte{0x42}));
};

bool IsZero(const GuestMemory& memory, Gpa gpa, uint64_t bytes) {
  const std::byte* const host = memory.UnsafeHost(gpa, bytes);
  // Shifted by one against itself: every byte is the first one's value. Much faster than a loop under sanitizers.
  return host[0] == std::byte{0} && std::memcmp(host, host + 1, bytes - 1) == 0;
}

}  // namespace

void FuzzLoad(std::span<const std::byte> image, ImageFormat format) {
  static const Machine& machine = *new Machine;
  const OwnedFd fd = MakeImageFile(image);
  Require(fd.valid());
  const LoadOptions options{.initramfs_fd = machine.initramfs.get(),
                            .initramfs_name = "initramfs",
                            .command_line = "fuzz",
                            .acpi_rsdp = kAcpiTablesBase,
                            .multiboot = format == ImageFormat::kMultiboot,
                            .reserved = {kReservedRange}};
  const auto loaded = LoadKernel(fd.get(), "fuzz", *machine.memory, machine.layout, options);
  Require(IsZero(*machine.memory, kReservedRange.start, kReservedRange.bytes));
  Require(IsZero(*machine.memory, kLowRamEnd, kHighRamStart - kLowRamEnd));
  if (!loaded.ok()) {
    Require(!loaded.status().message().empty());
    return;
  }
  if (loaded->format != format) return;
  const uint64_t kernel = loaded->kernel.raw();
  const uint64_t initramfs = loaded->initramfs.raw();
  Require(kernel >= kMiB && kernel < kRamBytes && loaded->kernel_bytes <= kRamBytes - kernel);
  Require(initramfs >= kMiB && initramfs <= kRamBytes - kPageBytes && initramfs % kPageBytes == 0);
  // An ELF kernel's segments may leave gaps, and the initramfs may lie in one: a bzImage is in one piece.
  if (format == ImageFormat::kBzImage) {
    Require(initramfs >= kernel + loaded->kernel_bytes || initramfs + kPageBytes <= kernel);
  }
  Require(loaded->entry.rip >= kernel && loaded->entry.rip < kernel + loaded->kernel_bytes);
}

}  // namespace vmm
