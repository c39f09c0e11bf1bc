// The decoder against this machine's own processor: random instructions run in this process, on pages that are refused first and
// allowed as page faults name them, and the faults are compared with what the decoder finds with the same pages refused.
//
// Only instructions of user mode whose accesses depend on general registers alone. A read and write of one place is one write
// here: processors fault on it with the intent to write.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <Zydis/Zydis.h>
#include <gtest/gtest.h>

#include "memory/gpa.h"
#include "memory/page_rights.h"
#include "vcpu/access_decoder/access_trace.h"

// Where EnterNative jumps to; every register is the instruction's by then.
extern "C" {
__attribute__((visibility("hidden"), used)) uint64_t native_trace_target;
}

namespace vmm {
namespace {

constexpr uint64_t kBase = 0x1000'0000;
constexpr uint64_t kBytes = 64 * kPageBytes;
constexpr uint64_t kCodePage = kBase + 0x1000;

sigjmp_buf g_back;
struct Caught {
  int signal;
  uint64_t address;
  bool page_fault;
  bool write;
};
Caught g_caught;

void OnSignal(int signal, siginfo_t* info, void* context) {
  const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  g_caught = {.signal = signal,
              .address = reinterpret_cast<uint64_t>(info->si_addr),
              .page_fault = registers[REG_TRAPNO] == 14,
              .write = (registers[REG_ERR] & 2) != 0};
  siglongjmp(g_back, 1);
}

[[noreturn]] __attribute__((noinline)) void EnterNative(const uint64_t* gpr) {
  asm volatile(
      "fninit\n"
      "mov 8(%%rax), %%rcx\n"
      "mov 16(%%rax), %%rdx\n"
      "mov 24(%%rax), %%rbx\n"
      "mov 32(%%rax), %%rsp\n"
      "mov 40(%%rax), %%rbp\n"
      "mov 48(%%rax), %%rsi\n"
      "mov 56(%%rax), %%rdi\n"
      "mov 64(%%rax), %%r8\n"
      "mov 72(%%rax), %%r9\n"
      "mov 80(%%rax), %%r10\n"
      "mov 88(%%rax), %%r11\n"
      "mov 96(%%rax), %%r12\n"
      "mov 104(%%rax), %%r13\n"
      "mov 112(%%rax), %%r14\n"
      "mov 120(%%rax), %%r15\n"
      "mov (%%rax), %%rax\n"
      "jmp *native_trace_target(%%rip)\n"
      :
      : "a"(gpr)
      : "memory");
  __builtin_unreachable();
}

// Until the signal that ends it, which always comes: a breakpoint is behind the instruction.
Caught RunNative(const uint64_t* gpr) {
  if (sigsetjmp(g_back, 1) == 0) EnterNative(gpr);
  const uint32_t mxcsr = 0x1f80;
  asm volatile("fninit\n ldmxcsr %0" : : "m"(mxcsr));
  return g_caught;
}

bool IsTried(const ZydisDecodedInstruction& info, std::span<const ZydisDecodedOperand> operands) {
  switch (info.meta.category) {
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_LOGICAL_FP:
    case ZYDIS_CATEGORY_MISC:
    case ZYDIS_CATEGORY_MMX:
    case ZYDIS_CATEGORY_POP:
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_SEMAPHORE:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_SSE:
    case ZYDIS_CATEGORY_STRINGOP:
    case ZYDIS_CATEGORY_X87_ALU: break;
    default: return false;
  }
  switch (info.mnemonic) {
    // They change what the process needs, access by vector registers, or (FNSAVE, FNSTENV) name some byte of a second page.
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_UMONITOR: return false;
    default: break;
  }
  if (info.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  return std::ranges::none_of(operands, [](const ZydisDecodedOperand& operand) {
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
      const ZydisRegisterClass kind = ZydisRegisterGetClass(operand.reg.value);
      return kind == ZYDIS_REGCLASS_SEGMENT || kind == ZYDIS_REGCLASS_CONTROL || kind == ZYDIS_REGCLASS_DEBUG;
    }
    // This thread's own data.
    return operand.type == ZYDIS_OPERAND_TYPE_MEMORY &&
           (operand.mem.segment == ZYDIS_REGISTER_FS || operand.mem.segment == ZYDIS_REGISTER_GS);
  });
}

class NativeTraceTest : public testing::Test {
 protected:
  NativeTraceTest() {
    for (uint64_t page = 0; page < kBytes; page += kPageBytes) tables_.Map(kBase + page, page);
    trace_.registers.cr3 = tables_.cr3();
    trace_.registers.cpl = 3;
    stack_.resize(1 << 16);
    const stack_t alternate = {.ss_sp = stack_.data(), .ss_flags = 0, .ss_size = stack_.size()};
    EXPECT_EQ(::sigaltstack(&alternate, &old_stack_), 0);
    struct sigaction action = {};
    action.sa_sigaction = OnSignal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (size_t i = 0; i < kSignals.size(); ++i) EXPECT_EQ(::sigaction(kSignals[i], &action, &old_[i]), 0);
  }
  ~NativeTraceTest() override {
    for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &old_[i], nullptr);
    ::sigaltstack(&old_stack_, nullptr);
    ::munmap(reinterpret_cast<void*>(kBase), kBytes);
  }

  static std::string Entry(bool write, uint64_t address) {
    char text[32];
    std::snprintf(text, sizeof(text), "%c%llx ", write ? 'w' : 'r', static_cast<unsigned long long>(address));
    return text;
  }

  // "": nothing to compare.
  std::string Native() {
    std::string seen;
    EXPECT_EQ(::mprotect(reinterpret_cast<void*>(kBase), kBytes, PROT_READ | PROT_WRITE), 0);
    std::memcpy(reinterpret_cast<void*>(trace_.registers.rip), code_.data(), code_.size());
    EXPECT_EQ(::mprotect(reinterpret_cast<void*>(kBase), kBytes, PROT_NONE), 0);
    EXPECT_EQ(::mprotect(reinterpret_cast<void*>(kCodePage), kPageBytes, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
    native_trace_target = trace_.registers.rip;
    for (int i = 0; i < 100; ++i) {
      const Caught caught = RunNative(trace_.registers.gpr.data());
      if (caught.signal == SIGILL) return "";
      if (caught.signal == SIGTRAP || caught.signal == SIGFPE) return seen + "done";
      // #GP: mostly operands of SSE that are not aligned, which the decoder does not see.
      if (!caught.page_fault) return "";
      if (caught.address < kBase || caught.address >= kBase + kBytes) return seen + "fault";
      seen += Entry(caught.write, caught.address);
      EXPECT_EQ(::mprotect(reinterpret_cast<void*>(caught.address & ~(kPageBytes - 1)), kPageBytes,
                           caught.write ? PROT_READ | PROT_WRITE : PROT_READ),
                0);
    }
    return seen + "...";
  }

  std::string Decoded() {
    static_cast<void>(trace_.memory->Write(Gpa(trace_.registers.rip - kBase), std::as_bytes(std::span(code_))));
    trace_.view = FakeLevelView();
    for (uint64_t page = 0; page < kBytes; page += kPageBytes) {
      if (page != kCodePage - kBase) trace_.view.Set(page, PageRights::None());
    }
    std::string seen;
    std::string last;
    for (int i = 0; i < 100; ++i) {
      const AccessDecoding decoding = trace_.Decode();
      if (decoding.finding == AccessFinding::kNone) return seen + "done";
      if (decoding.finding != AccessFinding::kViolation) return seen + "fault";
      const AccessViolation& violation = decoding.violation;
      const bool write = violation.kind == AccessKind::kWrite;
      const uint64_t address = violation.gva.value_or(0);
      // A read and then a write of one place is one write.
      if (write && last == Entry(false, address)) seen.resize(seen.size() - last.size());
      last = Entry(write, address);
      seen += last;
      const bool read_write = write || trace_.view.Rights(violation.gpa.page()).write();
      trace_.view.Set(violation.gpa.raw(), PageRights(read_write ? 3 : 1));
    }
    return seen + "...";
  }

  static constexpr std::array<int, 5> kSignals = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
  AccessTrace trace_;
  // Nothing is mapped but the region.
  FakePageTables tables_{*trace_.memory, Gpa(9 * kMiB)};
  std::array<uint8_t, 16> code_{};

 private:
  std::vector<std::byte> stack_;
  stack_t old_stack_ = {};
  std::array<struct sigaction, kSignals.size()> old_ = {};
};

TEST_F(NativeTraceTest, RandomInstructionsFaultWhereTheDecoderSays) {
  void* const region = ::mmap(reinterpret_cast<void*>(kBase), kBytes, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
  if (region != reinterpret_cast<void*>(kBase)) GTEST_SKIP() << "the address that this runs code at is taken";
  std::mt19937_64 random(11);
  ZydisDecoder decoder;
  ASSERT_EQ(ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64), ZYAN_STATUS_SUCCESS);
  unsigned compared = 0;
  unsigned accessing = 0;
  for (int n = 0; n < 40'000; ++n) {
    code_.fill(0xcc);
    for (size_t i = 0; i < 8; ++i) code_[i] = static_cast<uint8_t>(random());
    // Prefixes and the second opcode page are rare among random bytes.
    const std::array<uint8_t, 8> starts = {0x66, 0x48, 0xf0, 0xf3, 0x0f, 0x0f, 0xf2, 0x67};
    if (random() % 2 == 0) code_[0] = starts[random() % starts.size()];
    if (random() % 4 == 0) code_[1] = 0x0f;
    ZydisDecodedInstruction info;
    std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code_.data(), 15, &info, operands.data()))) continue;
    if (!IsTried(info, std::span(operands).first(info.operand_count))) continue;
    std::fill(code_.begin() + info.length, code_.end(), 0xcc);
    // Every register points into a page of its own, often near its end.
    for (size_t i = 0; i < 16; ++i) {
      const uint64_t offset = random() % 2 == 0 ? kPageBytes - random() % 40 : random() % 2048;
      trace_.registers.gpr[i] = kBase + (4 + i * 3) * kPageBytes + offset;
    }
    // One iteration of a repeated instruction: the decoder tells of no more.
    constexpr ZydisInstructionAttributes kRepeats = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    if ((info.attributes & kRepeats) != 0) trace_.registers.gpr[1] = random() % 2;
    trace_.registers.rip = kCodePage + 0x800;
    trace_.registers.rflags = 0x202;
    std::string native = Native();
    if (native.empty()) continue;
    std::string decoded = Decoded();
    ++compared;
    if (decoded.size() > 5) ++accessing;
    std::string bytes;
    for (size_t i = 0; i < info.length; ++i) {
      char text[4];
      std::snprintf(text, sizeof(text), "%02x", code_[i]);
      bytes += text;
    }
    // No order is architectural between the two reads of CMPS: this processor's differs with a prefix.
    if (info.opcode == 0xa6 || info.opcode == 0xa7) {
      std::ranges::sort(native);
      std::ranges::sort(decoded);
    }
    EXPECT_EQ(native, decoded) << bytes << " mnemonic " << info.mnemonic;
  }
  EXPECT_GT(compared, 2500u);
  EXPECT_GT(accessing, 1000u);
}

}  // namespace
}  // namespace vmm
