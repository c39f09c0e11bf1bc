#include "vmm/boot/reset_stub.h"

#include <array>

#include "base/status_matchers.h"
#include "memory/guest_ram.h"

namespace vmm {
namespace {

TEST(ResetStubTest, TheResetVectorWritesTheResetRegisterAndHalts) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kMiB));
  ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kMiB}));
  ASSERT_OK_AND_ASSIGN(const auto memory, GuestMemory::Create(*ram, layout));
  ASSERT_OK(WriteResetStub(*memory));
  std::array<uint8_t, 10> code{};
  ASSERT_TRUE(memory->ReadObject(Gpa(0xffff0), code));  // F000:FFF0, and FFFF:0000
  EXPECT_EQ(code, (std::array<uint8_t, 10>{0xba, 0x02, 0x06, 0xb0, 0x01, 0xee, 0xfa, 0xf4, 0xeb, 0xfd}));
}

}  // namespace
}  // namespace vmm
