// Loads the real kernel that tools/setup unpacks, in both its forms: guest_kernel_test VMLINUZ VMLINUX.
#include <fcntl.h>

#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "vmm/boot/boot_layout.h"
#include "vmm/boot/load_kernel.h"
#include "vmm/boot/load_request.h"

namespace vmm {
namespace {

const char* g_vmlinuz = nullptr;
const char* g_vmlinux = nullptr;

absl::StatusOr<LoadedKernel> Load(const char* path, uint64_t ram_bytes) {
  const OwnedFd fd(::open(path, O_RDONLY | O_CLOEXEC));
  EXPECT_TRUE(fd.valid()) << path;
  auto layout = MemoryLayout::Create(ram_bytes);
  EXPECT_OK(layout);
  auto ram = GuestRam::Create({.bytes = ram_bytes});
  EXPECT_OK(ram);
  auto memory = GuestMemory::Create(**ram, *layout);
  EXPECT_OK(memory);
  LoadOptions options;
  options.command_line = "console=ttyS0";
  options.acpi_rsdp = kAcpiTablesBase;
  return LoadKernel(fd.get(), path, **memory, *layout, options);
}

TEST(GuestKernelTest, BzImageLoadsAtSixteenMegabytes) {
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(g_vmlinuz, 256 * kMiB));
  EXPECT_EQ(loaded.format, ImageFormat::kBzImage);
  EXPECT_EQ(loaded.entry.rip, 16 * kMiB + 0x200);
  EXPECT_GT(loaded.kernel_bytes, 16 * kMiB);
}

TEST(GuestKernelTest, VmlinuxEntersByPvh) {
  ASSERT_OK_AND_ASSIGN(const LoadedKernel loaded, Load(g_vmlinux, 256 * kMiB));
  EXPECT_EQ(loaded.format, ImageFormat::kElfPvh);
  EXPECT_EQ(loaded.kernel, Gpa(16 * kMiB));
  EXPECT_EQ(loaded.entry.mode, CpuMode::kProtected32);
  EXPECT_GE(loaded.entry.rip, 16 * kMiB);
}

TEST(GuestKernelTest, TooSmallAMachineIsRefused) {
  EXPECT_THAT(Load(g_vmlinuz, 16 * kMiB), StatusIs(absl::StatusCode::kResourceExhausted, "it needs "));
  EXPECT_THAT(Load(g_vmlinux, 16 * kMiB), StatusIs(absl::StatusCode::kResourceExhausted, "ELF segment 0 wants "));
}

}  // namespace
}  // namespace vmm

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc != 3) return 2;
  vmm::g_vmlinuz = argv[1];
  vmm::g_vmlinux = argv[2];
  return RUN_ALL_TESTS();
}
