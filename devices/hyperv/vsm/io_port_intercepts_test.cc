#include "devices/hyperv/vsm/io_port_intercepts.h"

#include <memory>
#include <optional>

#include "gtest/gtest.h"

namespace vmm {
namespace {

constexpr Vtl kVtl2{2};

TEST(IoPortInterceptsTest, AreByPortAndDirection) {
  const auto ports = std::make_unique<IoPortIntercepts>();
  EXPECT_FALSE(ports->any());
  EXPECT_EQ(ports->Find(kVtl0, 0x3f8, 1, true), std::nullopt);
  ports->Install(kVtl1, 0x3f8, /*reads=*/false, /*writes=*/true);
  EXPECT_TRUE(ports->any());
  EXPECT_EQ(ports->Find(kVtl0, 0x3f8, 1, true), kVtl1);
  EXPECT_EQ(ports->Find(kVtl0, 0x3f8, 1, false), std::nullopt);
  EXPECT_EQ(ports->Find(kVtl0, 0x3f9, 1, true), std::nullopt);
  ports->Install(kVtl1, 0x3f8, true, false);
  EXPECT_EQ(ports->Find(kVtl0, 0x3f8, 1, true), std::nullopt);
  EXPECT_EQ(ports->Find(kVtl0, 0x3f8, 1, false), kVtl1);
  ports->Install(kVtl1, 0x3f8, false, false);
  EXPECT_EQ(ports->Find(kVtl0, 0x3f8, 1, false), std::nullopt);
}

TEST(IoPortInterceptsTest, AnAccessIsOfAllItsPorts) {
  const auto ports = std::make_unique<IoPortIntercepts>();
  ports->Install(kVtl1, 0x43, true, true);
  EXPECT_EQ(ports->Find(kVtl0, 0x40, 4, true), kVtl1);
  EXPECT_EQ(ports->Find(kVtl0, 0x40, 2, true), std::nullopt);
  EXPECT_EQ(ports->Find(kVtl0, 0x44, 4, true), std::nullopt);
}

TEST(IoPortInterceptsTest, TheLastPortHasNoneBehindIt) {
  const auto ports = std::make_unique<IoPortIntercepts>();
  ports->Install(kVtl1, 0, true, true);
  EXPECT_EQ(ports->Find(kVtl0, 0xffff, 4, true), std::nullopt);
  ports->Install(kVtl1, 0xffff, true, true);
  EXPECT_EQ(ports->Find(kVtl0, 0xfffe, 4, true), kVtl1);
}

TEST(IoPortInterceptsTest, LowestLevelAboveHearsFirstAndNoneOfItself) {
  const auto ports = std::make_unique<IoPortIntercepts>();
  ports->Install(kVtl2, 0x80, true, true);
  EXPECT_EQ(ports->Find(kVtl0, 0x80, 1, true), kVtl2);
  ports->Install(kVtl1, 0x80, true, true);
  EXPECT_EQ(ports->Find(kVtl0, 0x80, 1, true), kVtl1);
  EXPECT_EQ(ports->Find(kVtl1, 0x80, 1, true), kVtl2);
  EXPECT_EQ(ports->Find(kVtl2, 0x80, 1, true), std::nullopt);
}

}  // namespace
}  // namespace vmm
