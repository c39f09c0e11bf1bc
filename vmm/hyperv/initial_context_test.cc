#include "vmm/hyperv/initial_context.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(InitialContextTest, ASegmentsAttributesAreTheDescriptorsBits) {
  const kvm_segment code = KvmSegment({.base = 0x1000, .limit = 0xffff'ffff, .selector = 0x10, .attributes = 0xa09b});
  EXPECT_EQ(code.base, 0x1000u);
  EXPECT_EQ(code.limit, 0xffff'ffffu);
  EXPECT_EQ(code.selector, 0x10);
  EXPECT_EQ(code.type, 0xb);
  EXPECT_EQ(code.s, 1);
  EXPECT_EQ(code.dpl, 0);
  EXPECT_EQ(code.present, 1);
  EXPECT_EQ(code.avl, 0);
  EXPECT_EQ(code.l, 1);
  EXPECT_EQ(code.db, 0);
  EXPECT_EQ(code.g, 1);
  EXPECT_EQ(code.unusable, 0);
}

TEST(InitialContextTest, EachAttributeHasItsOwnPlace) {
  EXPECT_EQ(KvmSegment({.attributes = 0x0060}).dpl, 3);
  EXPECT_EQ(KvmSegment({.attributes = 0x1000}).avl, 1);
  EXPECT_EQ(KvmSegment({.attributes = 0x4000}).db, 1);
  EXPECT_EQ(KvmSegment({.attributes = 0x0010}).s, 1);
}

TEST(InitialContextTest, ASegmentThatIsNotPresentIsUnusable) {
  EXPECT_EQ(KvmSegment({}).unusable, 1);
  EXPECT_EQ(KvmSegment({}).present, 0);
}

}  // namespace
}  // namespace vmm
