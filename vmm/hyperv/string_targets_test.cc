#include "vmm/hyperv/string_targets.h"

#include <array>
#include <cstdint>

#include "gtest/gtest.h"
#include "memory/page_rights.h"
#include "vcpu/access_decoder/access_trace.h"

namespace vmm {
namespace {

constexpr size_t kRcx = 1, kRdi = 7;

class StringTargetsTest : public testing::Test {
 protected:
  void SetUp() override {
    for (uint64_t i = 0; i < 64; ++i) trace_.Put<uint8_t>(0x7ff0 + i, static_cast<uint8_t>(i));
    data_.fill(std::byte{0xee});
  }
  void Load(size_t bytes) { LoadStringTargets(trace_.registers, *trace_.memory, trace_.view, bytes, data_); }
  [[nodiscard]] uint8_t At(size_t index) const { return static_cast<uint8_t>(data_[index]); }

  AccessTrace trace_;
  std::array<std::byte, 8> data_;
};

TEST_F(StringTargetsTest, AreTheElementsThatComeNext) {
  trace_.PutCode("f36d");  // rep insd
  trace_.registers.gpr[kRdi] = 0x7ff4;
  trace_.registers.gpr[kRcx] = 2;
  Load(4);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(At(i), 4 + i);
}

TEST_F(StringTargetsTest, AreBackwardsWithTheDirectionFlag) {
  trace_.PutCode("f3666d");  // rep insw
  trace_.registers.gpr[kRdi] = 0x7ff8;
  trace_.registers.rflags |= 1 << 10;
  Load(2);
  constexpr uint8_t kWant[] = {8, 9, 6, 7, 4, 5, 2, 3};
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(At(i), kWant[i]);
}

TEST_F(StringTargetsTest, AreZeroWhereTheyCannotBeRead) {
  trace_.PutCode("f36c");  // rep insb
  trace_.registers.gpr[kRdi] = 0x7ffc;
  trace_.view.Set(0x8000, PageRights::None());
  Load(1);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(At(i), 12 + i);
  for (size_t i = 4; i < 8; ++i) EXPECT_EQ(At(i), 0);
}

TEST_F(StringTargetsTest, AreZeroForWhatWritesNowhereOrIsNone) {
  for (const char* code : {"6e", "a7", "06", "0f30"}) {  // outsb, cmpsd, nothing, wrmsr
    trace_.PutCode(code);
    data_.fill(std::byte{0xee});
    Load(8);
    for (size_t i = 0; i < 8; ++i) EXPECT_EQ(At(i), 0) << code;
  }
}

TEST_F(StringTargetsTest, StrangeSizesAreHarmless) {
  trace_.PutCode("6c");
  for (const size_t bytes : {size_t{0}, size_t{3}, size_t{8}, size_t{9}, ~size_t{0}}) Load(bytes);
  trace_.registers.gpr[kRdi] = ~uint64_t{0};
  Load(1);
  trace_.registers.rip = ~uint64_t{0};
  Load(1);
  EXPECT_EQ(At(0), 0);
}

}  // namespace
}  // namespace vmm
