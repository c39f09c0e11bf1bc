// Tests and their assertions, a line of output each.
//
// Shapes   TEST(Name) { ... } registers itself. EXPECT_* goes on after a failure, ASSERT_* returns from the function it is in.
//          Lines: "# test Name", then "ok N - what" or "not ok N - what (file:line: got .. want ..)", then
//          "# end Name"; at the end "1..N". With lines=short on the command line, "ok N" alone. A test that asserts nothing has failed.
// Threads  TEST bodies run on processor 0, interrupts on, in the order of the file; assertions: any processor.
// Errors   the guest ends by the debug exit: 0 all passed, 1 something failed, 2 it could not go on.
#ifndef VMM_TESTS_GUESTS_RUNTIME_TEST_H_
#define VMM_TESTS_GUESTS_RUNTIME_TEST_H_

#include <cstdint>
#include <initializer_list>  // for loops over lists
#include <type_traits>

#include "tests/guests/runtime/interrupts.h"

namespace guest {

// Compilers emit them in no particular order: the line is what sorts them. Aligned so that the section is an array.
struct alignas(32) TestCase {
  const char* name;
  void (*run)();
  int line;
};

// A word that knows how it is to be compared and shown.
struct Value {
  uint64_t bits;
  bool is_signed;
};
template <typename T>
Value ToValue(T value) {
  if constexpr (std::is_enum_v<T>) {
    return ToValue(static_cast<std::underlying_type_t<T>>(value));
  } else if constexpr (std::is_pointer_v<T>) {
    return {reinterpret_cast<uint64_t>(value), false};
  } else {
    static_assert(std::is_integral_v<T>, "assertions are about integers, enums and pointers");
    return {static_cast<uint64_t>(value), std::is_signed_v<T>};  // sign-extended
  }
}

enum class Relation : uint8_t { kEqual, kNotEqual, kLess, kLessOrEqual, kGreater, kGreaterOrEqual };
bool Check(Value got, Relation relation, Value want, const char* what, const char* file, int line);
bool CheckFault(const Fault& got, int want_vector, const char* what, const char* file, int line);
void Skip(const char* why);
// The guest cannot go on: says why, and ends it.
[[noreturn]] void Fatal(const char* what, uint64_t value = 0);

// Added to every assertion's line on this processor while it lives: Context context("sint", sint);
class Context final {
 public:
  Context(const char* name, uint64_t value);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

 private:
  friend class ContextPrinter;
  const char* const name_;
  const uint64_t value_;
  Context* const outer_;
};

#define TEST(name)                                                                                         \
  static void GuestTest_##name();                                                                          \
  [[gnu::section("guest_tests"), gnu::used]] static const ::guest::TestCase kGuestTest_##name{             \
      #name, &GuestTest_##name, __LINE__};                                                                 \
  static void GuestTest_##name()

#define GUEST_CHECK(got, relation, want, text) \
  ::guest::Check(::guest::ToValue(got), ::guest::Relation::relation, ::guest::ToValue(want), text, __FILE__, __LINE__)

#define EXPECT_EQ(got, want) (void)GUEST_CHECK(got, kEqual, want, #got " == " #want)
#define EXPECT_NE(got, want) (void)GUEST_CHECK(got, kNotEqual, want, #got " != " #want)
#define EXPECT_LT(got, want) (void)GUEST_CHECK(got, kLess, want, #got " < " #want)
#define EXPECT_LE(got, want) (void)GUEST_CHECK(got, kLessOrEqual, want, #got " <= " #want)
#define EXPECT_GT(got, want) (void)GUEST_CHECK(got, kGreater, want, #got " > " #want)
#define EXPECT_GE(got, want) (void)GUEST_CHECK(got, kGreaterOrEqual, want, #got " >= " #want)
#define EXPECT_TRUE(condition) (void)GUEST_CHECK(static_cast<bool>(condition), kEqual, true, #condition)
#define EXPECT_FALSE(condition) (void)GUEST_CHECK(static_cast<bool>(condition), kEqual, false, "!(" #condition ")")

#define ASSERT_EQ(got, want)                                         \
  do {                                                               \
    if (!GUEST_CHECK(got, kEqual, want, #got " == " #want)) return; \
  } while (false)
#define ASSERT_TRUE(condition)                                                           \
  do {                                                                                   \
    if (!GUEST_CHECK(static_cast<bool>(condition), kEqual, true, #condition)) return; \
  } while (false)

// `...` is one or more statements: EXPECT_FAULT(kGeneralProtection, WriteMsr(kMsr, 1));
#define EXPECT_FAULT(vector, ...) \
  (void)::guest::CheckFault(::guest::Catch([&] { __VA_ARGS__; }), vector, #vector " at " #__VA_ARGS__, __FILE__, __LINE__)
#define EXPECT_NO_FAULT(...)                                                                                             \
  (void)::guest::CheckFault(::guest::Catch([&] { __VA_ARGS__; }), ::guest::kNoFault, "no fault at " #__VA_ARGS__, \
                            __FILE__, __LINE__)

// Leaves the test, which counts as skipped if nothing in it failed.
#define SKIP(why)        \
  do {                   \
    ::guest::Skip(why); \
    return;              \
  } while (false)

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_TEST_H_
