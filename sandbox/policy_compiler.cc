#include "sandbox/policy_compiler.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/errno_status.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "sandbox/seccomp_policy.h"

namespace vmm {
namespace {

using Filter = std::unique_ptr<void, void (*)(scmp_filter_ctx)>;

#define NAMED(constant) {#constant, static_cast<uint64_t>(constant)}
const std::map<absl::string_view, uint64_t>& Constants() {
  static const auto* constants = new std::map<absl::string_view, uint64_t>{
      NAMED(PROT_NONE), NAMED(PROT_READ), NAMED(PROT_WRITE), NAMED(PROT_EXEC),
      NAMED(MAP_SHARED), NAMED(MAP_PRIVATE), NAMED(MAP_ANONYMOUS), NAMED(MAP_FIXED), NAMED(MAP_NORESERVE),
      NAMED(MAP_STACK), NAMED(MREMAP_MAYMOVE), NAMED(MADV_DONTNEED), NAMED(MADV_FREE),
      NAMED(F_GETFL), NAMED(F_GETFD), NAMED(F_SETFD), NAMED(F_SETFL), NAMED(F_DUPFD_CLOEXEC),
      NAMED(MADV_DONTDUMP), NAMED(MADV_POPULATE_WRITE), NAMED(MADV_REMOVE),
      NAMED(CLOCK_REALTIME), NAMED(CLOCK_MONOTONIC), NAMED(SIGABRT), NAMED(PR_GET_NAME), NAMED(PR_SET_NAME), NAMED(AT_EMPTY_PATH), NAMED(AF_UNIX),
      {"SELF", kSeccompSelfPid},
      {"FUTEX_WAIT_PRIVATE", 128}, {"FUTEX_WAKE_PRIVATE", 129}, {"FUTEX_WAIT_BITSET_PRIVATE", 137},
  };
  return *constants;
}
const std::map<absl::string_view, int>& Errors() {
  static const auto* errors = new std::map<absl::string_view, int>{
      {"EPERM", EPERM}, {"ENOENT", ENOENT}, {"EACCES", EACCES}, {"EINVAL", EINVAL},
      {"ENOTTY", ENOTTY}, {"ENOSYS", ENOSYS}, {"EBADF", EBADF}};
  return *errors;
}
#undef NAMED

// arg0..arg5 always work; a name is for the reader.
const std::map<absl::string_view, std::vector<absl::string_view>>& ArgumentNames() {
  static const auto* names = new std::map<absl::string_view, std::vector<absl::string_view>>{
      {"read", {"fd", "buf", "count"}},
      {"write", {"fd", "buf", "count"}},
      {"readv", {"fd", "vec", "vlen"}},
      {"writev", {"fd", "vec", "vlen"}},
      {"pread64", {"fd", "buf", "count", "pos"}},
      {"pwrite64", {"fd", "buf", "count", "pos"}},
      {"mmap", {"addr", "len", "prot", "flags", "fd", "off"}},
      {"mprotect", {"start", "len", "prot"}},
      {"mremap", {"addr", "old_len", "new_len", "flags", "new_addr"}},
      {"madvise", {"start", "len", "advice"}},
      {"fcntl", {"fd", "cmd", "arg"}},
      {"ioctl", {"fd", "cmd", "arg"}},
      {"futex", {"uaddr", "op", "val"}},
      {"sendto", {"fd", "buf", "len", "flags", "addr", "addr_len"}},
      {"recvfrom", {"fd", "buf", "len", "flags", "addr", "addr_len"}},
      {"sendmsg", {"fd", "msg", "flags"}},
      {"recvmsg", {"fd", "msg", "flags"}},
      {"epoll_ctl", {"epfd", "op", "fd", "event"}},
      {"tgkill", {"tgid", "tid", "sig"}},
      {"clock_gettime", {"clock", "tp"}},
      {"clock_nanosleep", {"clock", "flags", "request", "remain"}},
      {"newfstatat", {"dirfd", "path", "buf", "flags"}},
      {"timerfd_settime", {"fd", "flags", "new", "old"}},
      {"clone", {"flags", "stack"}},
      {"prctl", {"option", "arg2", "arg3", "arg4", "arg5"}},
      {"fallocate", {"fd", "mode", "offset", "len"}},
      {"socketpair", {"domain", "type", "protocol", "fds"}},
      {"shutdown", {"fd", "how"}},
  };
  return *names;
}

struct Term {
  unsigned argument;
  scmp_compare operation;
  uint64_t mask = 0;             // of a masked comparison
  std::vector<uint64_t> values;  // one, or a set
};

absl::string_view Trim(absl::string_view text) { return absl::StripAsciiWhitespace(text); }

// What `let` has named.
using Names = std::map<std::string, uint64_t, std::less<>>;

absl::StatusOr<uint64_t> ParseValue(const Names& names, absl::string_view text) {
  uint64_t value = 0;
  if (Trim(text).empty()) return absl::InvalidArgumentError("a value is missing");
  for (absl::string_view part : absl::StrSplit(text, '|')) {
    part = Trim(part);
    const auto known = Constants().find(part);
    const auto named = names.find(std::string(part));
    uint64_t number = 0;
    if (known != Constants().end()) {
      number = known->second;
    } else if (named != names.end()) {
      number = named->second;
    } else if (!(absl::StartsWith(part, "0x") ? absl::SimpleHexAtoi(part, &number) : absl::SimpleAtoi(part, &number))) {
      return absl::InvalidArgumentError(absl::StrCat("'", part, "' is neither a number nor a known constant"));
    }
    value |= number;
  }
  return value;
}

absl::StatusOr<unsigned> ParseArgument(absl::string_view call, absl::string_view text) {
  const auto named = ArgumentNames().find(call);
  if (named != ArgumentNames().end()) {
    for (size_t i = 0; i < named->second.size(); ++i) {
      if (named->second[i] == text) return static_cast<unsigned>(i);
    }
  }
  if (text.size() == 4 && absl::StartsWith(text, "arg") && text[3] >= '0' && text[3] <= '5') {
    return static_cast<unsigned>(text[3] - '0');
  }
  return absl::InvalidArgumentError(absl::StrCat("'", call, "' has no argument named '", text, "' (arg0..arg5 always work)"));
}

std::string NameOf(absl::string_view call, unsigned argument) {
  const auto named = ArgumentNames().find(call);
  if (named != ArgumentNames().end() && argument < named->second.size()) return std::string(named->second[argument]);
  return absl::StrCat("arg", argument);
}

absl::StatusOr<Term> ParseTerm(const Names& names, absl::string_view call, absl::string_view text) {
  Term term{};
  if (const size_t in = text.find(" in "); in != absl::string_view::npos) {
    ASSIGN_OR_RETURN(term.argument, ParseArgument(call, Trim(text.substr(0, in))));
    absl::string_view set = Trim(text.substr(in + 4));
    if (!absl::ConsumePrefix(&set, "{") || !absl::ConsumeSuffix(&set, "}")) {
      return absl::InvalidArgumentError("a set is written {A, B}");
    }
    term.operation = SCMP_CMP_EQ;
    for (const absl::string_view item : absl::StrSplit(set, ',')) {
      ASSIGN_OR_RETURN(const uint64_t value, ParseValue(names, item));
      term.values.push_back(value);
    }
    return term;
  }
  static constexpr std::pair<absl::string_view, scmp_compare> kOperators[] = {
      {"==", SCMP_CMP_EQ}, {"!=", SCMP_CMP_NE}, {"<=", SCMP_CMP_LE}, {">=", SCMP_CMP_GE}};
  for (const auto& [symbol, operation] : kOperators) {
    const size_t at = text.find(symbol);
    if (at == absl::string_view::npos) continue;
    absl::string_view left = Trim(text.substr(0, at));
    ASSIGN_OR_RETURN(const uint64_t value, ParseValue(names, text.substr(at + 2)));
    term.operation = operation;
    if (const size_t mask = left.find('&'); mask != absl::string_view::npos) {
      if (operation != SCMP_CMP_EQ) return absl::InvalidArgumentError("a masked argument is compared with == only");
      ASSIGN_OR_RETURN(term.mask, ParseValue(names, left.substr(mask + 1)));
      if ((value & ~term.mask) != 0) return absl::InvalidArgumentError("can never hold: the value has bits outside the mask");
      term.operation = SCMP_CMP_MASKED_EQ;
      left = Trim(left.substr(0, mask));
    }
    ASSIGN_OR_RETURN(term.argument, ParseArgument(call, left));
    term.values.push_back(value);
    return term;
  }
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' has no comparison (==, !=, <=, >=, in)"));
}

class Compiler {
 public:
  Compiler(scmp_filter_ctx filter, const PolicyReader& reader) : filter_(filter), reader_(reader) {}

  absl::Status AddFile(absl::string_view file, int depth) {
    ASSIGN_OR_RETURN(const std::string text, reader_(file));
    int number = 0;
    for (absl::string_view line : absl::StrSplit(text, '\n')) {
      ++number;
      line = Trim(line.substr(0, line.find('#')));
      if (line.empty()) continue;
      absl::Status status = AddLine(file, number, line, depth);
      if (!status.ok()) {
        // An included file has named its own line.
        if (status.message().find(".policy:") != absl::string_view::npos) return status;
        return absl::InvalidArgumentError(absl::StrCat(file, ":", number, ": ", status.message()));
      }
    }
    return absl::OkStatus();
  }

  // What is to run before libseccomp's program; it goes on there where nothing matches.
  [[nodiscard]] const std::vector<sock_filter>& first() const { return first_; }
  [[nodiscard]] std::vector<CompiledPolicy::CheckedCall> Checked() const {
    std::vector<CompiledPolicy::CheckedCall> checked;
    for (const auto& [call, arguments] : checked_) checked.push_back({call, arguments});
    return checked;
  }

 private:
  absl::Status AddLine(absl::string_view file, int number, absl::string_view line, int depth) {
    if (absl::ConsumePrefix(&line, "include ")) {
      if (depth >= 4) return absl::InvalidArgumentError("files include each other");
      return AddFile(Trim(line), depth + 1);
    }
    if (absl::ConsumePrefix(&line, "let ")) return AddName(line);
    const bool first = absl::ConsumePrefix(&line, "first ");
    uint32_t action = SCMP_ACT_ALLOW;
    if (const size_t arrow = line.find("->"); arrow != absl::string_view::npos) {
      absl::string_view text = Trim(line.substr(arrow + 2));
      line = Trim(line.substr(0, arrow));
      if (!absl::ConsumePrefix(&text, "errno ")) return absl::InvalidArgumentError("the only other action is '-> errno NAME'");
      const auto error = Errors().find(Trim(text));
      if (error == Errors().end()) return absl::InvalidArgumentError(absl::StrCat("unknown error name '", Trim(text), "'"));
      action = SCMP_ACT_ERRNO(static_cast<uint32_t>(error->second));
    }
    const size_t colon = line.find(':');
    const std::string call(Trim(line.substr(0, colon)));
    const int syscall = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, call.c_str());
    if (syscall < 0) return absl::InvalidArgumentError(absl::StrCat("x86-64 has no system call '", call, "'"));

    std::vector<Term> terms;
    if (colon != absl::string_view::npos) {
      for (const absl::string_view part : absl::StrSplit(line.substr(colon + 1), "&&")) {
        ASSIGN_OR_RETURN(Term term, ParseTerm(names_, call, Trim(part)));
        for (const Term& other : terms) {
          if (other.argument == term.argument) {
            return absl::InvalidArgumentError("one comparison an argument in a rule: join masks, or write two rules");
          }
        }
        terms.push_back(std::move(term));
      }
    }
    if (first) RETURN_IF_ERROR(AddFirst(action, syscall, terms));
    // libseccomp lets an unconditional rule swallow the conditional ones, whichever came first: say so instead.
    const bool unconditional = terms.empty();
    const std::string here = absl::StrCat(file, ":", number);
    const auto [seen, is_new] = calls_.try_emplace(syscall, Seen{here, unconditional});
    if (!is_new && (unconditional || seen->second.unconditional)) {
      return absl::InvalidArgumentError(absl::StrCat("'", call, "' has a rule already (line ",
                                                     seen->second.where.substr(seen->second.where.rfind(':') + 1), " of ",
                                                     seen->second.where.substr(0, seen->second.where.rfind(':')),
                                                     "), and one of the two has no condition"));
    }
    for (const Term& term : terms) checked_[syscall][term.argument] = std::string(NameOf(call, term.argument));
    return AddProduct(action, syscall, terms, 0, {});
  }

  // libseccomp orders the calls as a tree, but the conditions of one call as it likes: 40 instructions at each KVM_RUN.
  absl::Status AddFirst(uint32_t action, int syscall, const std::vector<Term>& terms) {
    std::vector<std::pair<uint32_t, uint32_t>> words = {{offsetof(seccomp_data, arch), AUDIT_ARCH_X86_64},
                                                        {offsetof(seccomp_data, nr), static_cast<uint32_t>(syscall)}};
    for (const Term& term : terms) {
      if (term.operation != SCMP_CMP_EQ || term.values.size() != 1) action = 0;
      const auto low = static_cast<uint32_t>(offsetof(seccomp_data, args) + 8 * term.argument);
      words.emplace_back(low, static_cast<uint32_t>(term.values[0]));
      words.emplace_back(low + 4, static_cast<uint32_t>(term.values[0] >> 32));
    }
    if (action != SCMP_ACT_ALLOW) return absl::InvalidArgumentError("'first' is for a rule that allows, with == only");
    auto left = static_cast<uint8_t>(2 * words.size());  // instructions up to the one behind this rule's
    for (const auto& [offset, value] : words) {
      first_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset));
      left = static_cast<uint8_t>(left - 2);
      first_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, static_cast<uint8_t>(left + 1)));
    }
    first_.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    return absl::OkStatus();
  }

  absl::Status AddName(absl::string_view text) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    const std::string name(Trim(parts.first));
    ASSIGN_OR_RETURN(const uint64_t value, ParseValue(names_, parts.second));
    if (name.empty() || Constants().count(name) != 0 || !names_.try_emplace(name, value).second) {
      return absl::InvalidArgumentError(absl::StrCat("'", name, "' has a value already, or is no name"));
    }
    return absl::OkStatus();
  }

  // Every combination of the sets' members is a rule of its own.
  absl::Status AddProduct(uint32_t action, int syscall, const std::vector<Term>& terms, size_t index,
                          std::vector<scmp_arg_cmp> chosen) {
    if (index == terms.size()) {
      const int result = seccomp_rule_add_exact_array(filter_, action, syscall, static_cast<unsigned>(chosen.size()),
                                                      chosen.data());
      return result == 0 ? absl::OkStatus() : ErrnoStatus(-result, "libseccomp refuses the rule");
    }
    const Term& term = terms[index];
    for (const uint64_t value : term.values) {
      const bool masked = term.operation == SCMP_CMP_MASKED_EQ;
      chosen.push_back({term.argument, term.operation, masked ? term.mask : value, masked ? value : 0});
      RETURN_IF_ERROR(AddProduct(action, syscall, terms, index + 1, chosen));
      chosen.pop_back();
    }
    return absl::OkStatus();
  }

  struct Seen {
    std::string where;
    bool unconditional;
  };
  scmp_filter_ctx filter_;
  const PolicyReader& reader_;
  std::map<int, Seen> calls_;
  std::map<int, std::array<std::string, 6>> checked_;
  Names names_;
  std::vector<sock_filter> first_;
};

}  // namespace

absl::StatusOr<CompiledPolicy> CompilePolicy(absl::string_view file, const PolicyReader& reader) {
  // What the building machine's kernel can do does not matter.
  if (const int result = seccomp_api_set(3); result != 0) return ErrnoStatus(-result, "set libseccomp's API level");
  const Filter filter(seccomp_init(SCMP_ACT_TRAP), &seccomp_release);
  if (filter == nullptr) return absl::InternalError("create libseccomp filter");
  if (const int result = seccomp_attr_set(filter.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS); result != 0) {
    return ErrnoStatus(-result, "set the action for other architectures");
  }
  if (seccomp_arch_exist(filter.get(), SCMP_ARCH_X86_64) != 0) {
    if (const int result = seccomp_arch_add(filter.get(), SCMP_ARCH_X86_64); result != 0) {
      return ErrnoStatus(-result, "add x86-64");
    }
    seccomp_arch_remove(filter.get(), SCMP_ARCH_NATIVE);
  }
  // A binary tree over the call numbers instead of a chain.
  if (const int result = seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2); result != 0) {
    return ErrnoStatus(-result, "order the filter as a tree");
  }
  Compiler compiler(filter.get(), reader);
  RETURN_IF_ERROR(compiler.AddFile(file, 0));

  const OwnedFd memory(::memfd_create("policy", MFD_CLOEXEC));
  if (!memory.valid()) return ErrnoStatus(errno, "create memory file");
  if (const int result = seccomp_export_bpf(filter.get(), memory.get()); result != 0) {
    return ErrnoStatus(-result, "export the program");
  }
  const off_t bytes = ::lseek(memory.get(), 0, SEEK_END);
  if (bytes < static_cast<off_t>(sizeof(sock_filter)) || bytes % sizeof(sock_filter) != 0) return absl::InternalError("export the program: odd size");
  std::vector<sock_filter> program(static_cast<size_t>(bytes) / sizeof(sock_filter));
  if (::pread(memory.get(), program.data(), static_cast<size_t>(bytes), 0) != bytes) {
    return ErrnoStatus(errno, "read the program back");
  }
  program.insert(program.begin(), compiler.first().begin(), compiler.first().end());
  if (program.size() > BPF_MAXINSNS) return absl::InvalidArgumentError(absl::StrCat(file, ": the program is too long"));
  return CompiledPolicy{std::move(program), compiler.Checked()};
}

}  // namespace vmm
