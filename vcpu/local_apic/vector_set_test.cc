#include "vcpu/local_apic/vector_set.h"

#include <cstdint>
#include <optional>

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(VectorSetTest, EveryVectorHasItsOwnBit) {
  for (unsigned vector = 0; vector < 256; ++vector) {
    VectorSet set;
    set.Set(static_cast<uint8_t>(vector));
    EXPECT_EQ(set.Highest(), vector);
    for (unsigned part = 0; part < 8; ++part) EXPECT_EQ(set.Part(part), part == vector / 32 ? 1u << vector % 32 : 0u);
    for (unsigned other = 0; other < 256; ++other) EXPECT_EQ(set.Has(static_cast<uint8_t>(other)), other == vector);
    set.Clear(static_cast<uint8_t>(vector));
    EXPECT_EQ(set, VectorSet());
  }
}

TEST(VectorSetTest, HighestIsOfAllWords) {
  VectorSet set;
  EXPECT_EQ(set.Highest(), std::nullopt);
  for (const uint8_t vector : {0, 63, 64, 191, 255}) {
    set.Set(vector);
    EXPECT_EQ(set.Highest(), vector);
  }
  set.Clear(255);
  EXPECT_EQ(set.Highest(), 191);
}

}  // namespace
}  // namespace vmm
