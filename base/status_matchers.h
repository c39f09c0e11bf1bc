// Test matchers for absl::Status. There is no "not OK" matcher: a test names the code that it expects.
#ifndef VMM_BASE_STATUS_MATCHERS_H_
#define VMM_BASE_STATUS_MATCHERS_H_

#include <ostream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace vmm {
namespace internal {
inline const absl::Status& AsStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& AsStatus(const absl::StatusOr<T>& status) {
  return status.status();
}
}  // namespace internal

MATCHER(IsOk, "is OK") {
  const absl::Status& status = internal::AsStatus(arg);
  if (!status.ok()) *result_listener << status.ToString();
  return status.ok();
}

// The code, and a text that the message must contain.
MATCHER_P2(StatusIs, code, text, "") {
  const absl::Status& status = internal::AsStatus(arg);
  *result_listener << status.ToString();
  return status.code() == code && std::string(status.message()).find(text) != std::string::npos;
}
}  // namespace vmm

#define VMM_TEST_CONCAT_INNER_(a, b) a##b
#define VMM_TEST_CONCAT_(a, b) VMM_TEST_CONCAT_INNER_(a, b)
#define ASSERT_OK(expr) ASSERT_THAT(expr, ::vmm::IsOk())
#define EXPECT_OK(expr) EXPECT_THAT(expr, ::vmm::IsOk())
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_IMPL_(VMM_TEST_CONCAT_(status_or_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                               \
  ASSERT_OK(tmp);                                  \
  lhs = *std::move(tmp)

#endif  // VMM_BASE_STATUS_MATCHERS_H_
