// Propagation of absl::Status without exceptions. Debian 12's abseil has none of these yet.
#ifndef VMM_BASE_STATUS_MACROS_H_
#define VMM_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define VMM_CONCAT_INNER_(a, b) a##b
#define VMM_CONCAT_(a, b) VMM_CONCAT_INNER_(a, b)

// Leaves the function with the status of `expr` unless that is OK.
#define RETURN_IF_ERROR(expr)                    \
  do {                                           \
    if (absl::Status status_ = (expr); !status_.ok()) return status_; \
  } while (false)

// ASSIGN_OR_RETURN(auto x, F()): x from the StatusOr, or leaves the function with its status.
#define ASSIGN_OR_RETURN(lhs, expr) ASSIGN_OR_RETURN_IMPL_(VMM_CONCAT_(status_or_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                           \
  if (!tmp.ok()) return std::move(tmp).status(); \
  lhs = *std::move(tmp)

#endif  // VMM_BASE_STATUS_MACROS_H_
