#include "sandbox/probe.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(ProbeSandboxTest, GivesAReasonExactlyWhereNamespacesAreMissing) {
  const SandboxProbe probe = ProbeSandbox();
  EXPECT_EQ(probe.namespaces, probe.namespaces_reason.empty()) << probe.namespaces_reason;
  EXPECT_GE(probe.landlock_abi, 0);
}

}  // namespace
}  // namespace vmm
