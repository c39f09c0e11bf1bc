#include "vmm/config/suggest.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(NearestTest, FindsTheNameWithAMistypedLetter) {
  EXPECT_EQ(Nearest("sise_mib", {"lock", "size_mib"}), "size_mib");
  EXPECT_EQ(Nearest("kernle", {"initramfs", "kernel"}), "kernel");
}

TEST(NearestTest, IgnoresLetterCaseAndDashes) { EXPECT_EQ(Nearest("Size-MiB", {"size_mib"}), "size_mib"); }

TEST(NearestTest, FindsNothingWhereNothingIsNear) {
  EXPECT_EQ(Nearest("frobnicate", {"lock", "size_mib"}), "");
  EXPECT_EQ(Nearest("", {"a"}), "");
  EXPECT_EQ(Nearest(std::string(100000, 'x'), {"a"}), "");
}

TEST(DidYouMeanTest, IsEmptyOrASentence) {
  EXPECT_EQ(DidYouMean("lokc", {"lock"}), "; did you mean lock?");
  EXPECT_EQ(DidYouMean("zzzz", {"lock"}), "");
}

}  // namespace
}  // namespace vmm
