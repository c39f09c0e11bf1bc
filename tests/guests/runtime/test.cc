#include "tests/guests/runtime/test.h"

#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/main.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/per_cpu.h"
#include "tests/guests/runtime/print.h"

extern "C" const guest::TestCase guest_tests_begin[], guest_tests_end[];

namespace guest {

class ContextPrinter final {
 public:
  static void To(Line& line, const Context* context) {
    if (context == nullptr) return;
    To(line, context->outer_);
    line << (context->outer_ == nullptr ? " [" : ", ") << context->name_ << '=' << context->value_;
    if (context == ThisCpu().context) line << ']';
  }
};

namespace {

Atomic<uint64_t> g_checks;
Atomic<uint64_t> g_failures;
bool g_short = false;  // immutable once tests run

// A word as people read it: small ones in decimal.
void Show(Line& line, Value value) {
  if (value.is_signed && static_cast<int64_t>(value.bits) < 0 && static_cast<int64_t>(value.bits) > -4096) {
    line << static_cast<long>(value.bits);
  } else if (value.bits < 10) {
    line << static_cast<unsigned long>(value.bits);
  } else {
    line.Hex(value.bits);
  }
}

bool Holds(Value got, Relation relation, Value want) {
  const bool is_signed = got.is_signed && want.is_signed;
  const bool less =
      is_signed ? static_cast<int64_t>(got.bits) < static_cast<int64_t>(want.bits) : got.bits < want.bits;
  switch (relation) {
    case Relation::kEqual: return got.bits == want.bits;
    case Relation::kNotEqual: return got.bits != want.bits;
    case Relation::kLess: return less;
    case Relation::kLessOrEqual: return less || got.bits == want.bits;
    case Relation::kGreater: return !less && got.bits != want.bits;
    case Relation::kGreaterOrEqual: return !less;
  }
  return false;
}

// `what` is left out where it is not asked for: a byte may cost a millisecond, and whoever runs thousands of assertions knows.
void Begin(Line& line, bool ok, const char* what) {
  const uint64_t number = g_checks.Add(1) + 1;
  if (!ok) g_failures.Add(1);
  line << (ok ? "ok " : "not ok ") << number;
  if (ok && g_short) return;
  line << " - " << what;
  ContextPrinter::To(line, ThisCpu().context);
}

const char* BaseName(const char* path) {
  const char* name = path;
  for (; *path != '\0'; ++path) {
    if (*path == '/') name = path + 1;
  }
  return name;
}

// `list` holds `name` between commas, or is absent.
bool IsChosen(const char* list, const char* name) {
  if (list == nullptr) return true;
  const size_t length = strlen(name);
  while (*list != '\0') {
    const char* end = list;
    while (*end != ',' && *end != '\0') ++end;
    if (static_cast<size_t>(end - list) == length && memcmp(list, name, length) == 0) return true;
    list = *end == ',' ? end + 1 : end;
  }
  return false;
}

bool IsBefore(const TestCase* a, const TestCase* b) { return a->line != b->line ? a->line < b->line : a < b; }

// The one that follows in the order of lines; nullptr asks for the first.
const TestCase* NextAfter(const TestCase* last) {
  const TestCase* next = nullptr;
  for (const TestCase* test = guest_tests_begin; test != guest_tests_end; ++test) {
    if ((last == nullptr || IsBefore(last, test)) && (next == nullptr || IsBefore(test, next))) next = test;
  }
  return next;
}

void RunTest(const TestCase& test) {
  Line begin;
  begin << "# test " << test.name;
  Print(begin);
  const uint64_t checks = g_checks.Load();
  test.run();
  if (g_checks.Load() == checks) (void)Check({0, false}, Relation::kNotEqual, {0, false}, "the test asserts something", test.name, 0);
  Line end;
  end << "# end " << test.name;
  Print(end);
}

}  // namespace

bool Check(Value got, Relation relation, Value want, const char* what, const char* file, int line_number) {
  const bool ok = Holds(got, relation, want);
  Line line;
  Begin(line, ok, what);
  if (!ok) {
    line << " (" << BaseName(file) << ':' << line_number << ": got ";
    Show(line, got);
    line << " want ";
    Show(line, want);
    line << ')';
  }
  Print(line);
  return ok;
}

bool CheckFault(const Fault& got, int want_vector, const char* what, const char* file, int line_number) {
  const bool ok = got.vector == want_vector;
  Line line;
  Begin(line, ok, what);
  if (!ok) {
    line << " (" << BaseName(file) << ':' << line_number << ": got ";
    if (got.raised()) {
      line << "vector " << got.vector << " at ";
      line.Hex(got.rip);
    } else {
      line << "no fault";
    }
    line << " want ";
    if (want_vector == kNoFault) {
      line << "none)";
    } else {
      line << "vector " << want_vector << ')';
    }
  }
  Print(line);
  return ok;
}

void Skip(const char* why) {
  Line line;
  line << "ok " << g_checks.Add(1) + 1 << " - SKIP " << why;
  Print(line);
}

void Fatal(const char* what, uint64_t value) {
  Line line;
  line << "Bail out! processor " << ThisCpu().number << " level " << ThisCpu().level->number << ": " << what << ' ' << value;
  Print(line);
  DebugExit(2);
}

Context::Context(const char* name, uint64_t value) : name_(name), value_(value), outer_(ThisCpu().context) {
  ThisCpu().context = this;
}

Context::~Context() { ThisCpu().context = outer_; }

void RunTests() {
  char chosen[256] = {};
  const char* const only = Argument("only");
  if (only != nullptr) memcpy(chosen, only, strlen(only));
  const char* const lines = Argument("lines");
  g_short = lines != nullptr && strcmp(lines, "short") == 0;
  const TestCase* last = nullptr;
  while (const TestCase* const test = NextAfter(last)) {
    if (IsChosen(only == nullptr ? nullptr : chosen, test->name)) RunTest(*test);
    last = test;
  }
  const uint64_t checks = g_checks.Load();
  const uint64_t failures = g_failures.Load();
  Line plan;
  plan << "1.." << checks;
  Print(plan);
  Line sum;
  sum << "# " << checks << " assertions, " << failures << " failed";
  Print(sum);
  DebugExit(failures == 0 && checks > 0 ? 0 : 1);
}

}  // namespace guest
