// Instructions as bytes, their accesses as AccessTrace writes them down. The text beside the bytes is what an assembler was
// given.
#include "vcpu/access_decoder/access_decoder.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "memory/page_rights.h"
#include "vcpu/access_decoder/access_trace.h"

namespace vmm {
namespace {

constexpr uint8_t kR = PageRights::kRead;
constexpr uint8_t kW = PageRights::kWrite;
constexpr uint8_t kKx = PageRights::kKernelExecute;
constexpr uint8_t kUx = PageRights::kUserExecute;

// Descriptors: flat; `A` means that the accessed bit is set.
constexpr uint64_t kCode64A = 0x00af'9b00'0000'ffff;
constexpr uint64_t kCode64 = 0x00af'9a00'0000'ffff;
constexpr uint64_t kDataA = 0x00cf'9300'0000'ffff;
constexpr uint64_t kData = 0x00cf'9200'0000'ffff;
constexpr uint64_t kUserCode64 = 0x00af'fa00'0000'ffff;
constexpr uint64_t kUserData = 0x00cf'f200'0000'ffff;
constexpr uint64_t kCode32 = 0x00cf'9a00'0000'ffff;
constexpr uint64_t kUserCode32 = 0x00cf'fa00'0000'ffff;
constexpr uint64_t kTask64 = 0x0000'8900'0000'0067;
constexpr uint64_t kLocal = 0x0000'8200'0000'00ff;
constexpr uint64_t kAbsent = 0x00cf'1200'0000'ffff;

struct Case {
  const char* code;
  const char* text;
  const char* trace;
};

void ExpectTraces(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    AccessTrace trace;
    trace.registers.fs.base = 0x100;
    trace.registers.gs.base = 0x5000;
    EXPECT_EQ(trace.Run(c.code), c.trace) << c.code << " " << c.text;
  }
}

TEST(AccessDecoderTest, MovesAndArithmetic) {
  ExpectTraces({
      {"488b18", "mov (%rax),%rbx", "r2010"},
      {"488918", "mov %rbx,(%rax)", "w2010"},
      {"830001", "addl $1,(%rax)", "r2010 w2010"},
      {"f048830001", "lock addq $1,(%rax)", "r2010 w2010"},
      {"0308", "add (%rax),%ecx", "r2010"},
      {"8a44cb08", "mov 8(%rbx,%rcx,8),%al", "r3040"},
      {"8b0500100000", "mov 0x1000(%rip),%eax", "r2006"},
      {"65488b042510000000", "mov %gs:0x10,%rax", "r5010"},
      {"648b00", "mov %fs:(%rax),%eax", "r2110"},
      {"678b18", "addr32 mov (%eax),%ebx", "r2010"},
      {"a04523000000000000", "movabs 0x2345,%al", "r2345"},
      {"488d18", "lea (%rax),%rbx", ""},
      {"c9", "leave", "ra040"},
      {"67f3a4", "addr32 rep movsb", "r6008 w7008"},
      {"d7", "xlat", "r3030"},
      {"488707", "xchg %rax,(%rdi)", "r7008 w7008"},
      {"0fc10f", "xadd %ecx,(%rdi)", "r7008 w7008"},
      {"480fb10f", "cmpxchg %rcx,(%rdi)", "r7008 w7008"},
      {"f00fc70f", "lock cmpxchg8b (%rdi)", "r7008 w7008"},
      {"f0480fc70f", "lock cmpxchg16b (%rdi)", "r7008 w7008"},
      {"480fa308", "bt %rcx,(%rax)", "r2010"},
      {"0fba2805", "bts $5,(%rax)", "r2010 w2010"},
      {"0fc307", "movnti %eax,(%rdi)", "w7008"},
      {"0f38f008", "movbe (%rax),%ecx", "r2010"},
      {"f20f38f008", "crc32b (%rax),%ecx", "r2010"},
      {"480f4218", "cmovc (%rax),%rbx", "r2010"},
      {"0f9400", "setz (%rax)", "w2010"},
      {"d320", "shll %cl,(%rax)", "r2010 w2010"},
      {"f710", "notl (%rax)", "r2010 w2010"},
      {"48f7e3", "mul %rbx", ""},
      {"48f720", "mulq (%rax)", "r2010"},
      {"f730", "divl (%rax)", "r2010"},
      {"6b0804", "imul $4,(%rax),%ecx", "r2010"},
      {"8500", "test %eax,(%rax)", "r2010"},
      {"803800", "cmpb $0,(%rax)", "r2010"},
  });
}

TEST(AccessDecoderTest, Stack) {
  ExpectTraces({
      {"50", "push %rax", "w87f8"},
      {"6651", "push %cx", "w87fe"},
      {"6a05", "pushq $5", "w87f8"},
      {"ff30", "pushq (%rax)", "r2010 w87f8"},
      {"58", "pop %rax", "r8800"},
      {"8f03", "popq (%rbx)", "r8800 w3020"},
      {"8f0424", "popq (%rsp)", "r8800 w8808"},
      {"8f842400100000", "popq 0x1000(%rsp)", "r8800 w9808"},
      {"9c", "pushfq", "w87f8"},
      {"9d", "popfq", "r8800"},
      {"e8fb000000", "call .+0x100", "w87f8"},
      {"ff10", "callq *(%rax)", "r2010 w87f8"},
      {"ffd0", "callq *%rax", "w87f8"},
      {"ff20", "jmpq *(%rax)", "r2010"},
      {"c3", "ret", "r8800"},
      {"c21000", "ret $16", "r8800"},
      {"c8100000", "enter $16,$0", "w87f8"},
      {"c8100003", "enter $16,$3", "w87f8 ra038"},
      {"c8001000", "enter $0x1000,$0", "w87f8 w77f8"},
  });
}

TEST(AccessDecoderTest, Strings) {
  ExpectTraces({
      {"a4", "movsb", "r6008 w7008"},
      {"48a5", "movsq", "r6008 w7008"},
      {"f348a5", "rep movsq", "r6008 w7008"},
      {"a6", "cmpsb", "r6008 r7008"},
      {"f3a7", "repe cmpsl", "r6008 r7008"},
      {"ab", "stosl", "w7008"},
      {"f3aa", "rep stosb", "w7008"},
      {"66ad", "lodsw", "r6008"},
      {"ae", "scasb", "r7008"},
      {"65ac", "lods %gs:(%rsi),%al", "rb008"},
      {"6e", "outsb", "r6008"},
      {"6d", "insl", "w7008"},
      {"f36f", "rep outsl", "r6008"},
  });
}

TEST(AccessDecoderTest, FloatingPointAndVectors) {
  ExpectTraces({
      {"db28", "fldt (%rax)", "r2010"},
      {"db38", "fstpt (%rax)", "w2010"},
      {"dd00", "fldl (%rax)", "r2010"},
      {"df08", "fisttps (%rax)", "w2010"},
      {"d930", "fnstenv (%rax)", "w2010"},
      {"d920", "fldenv (%rax)", "r2010"},
      {"dd30", "fnsave (%rax)", "w2010"},
      {"dd20", "frstor (%rax)", "r2010"},
      {"0fae00", "fxsave (%rax)", "w2010"},
      {"0fae08", "fxrstor (%rax)", "r2010"},
      {"0fae10", "ldmxcsr (%rax)", "r2010"},
      {"0fae18", "stmxcsr (%rax)", "w2010"},
      {"0f2800", "movaps (%rax),%xmm0", "r2010"},
      {"0f1100", "movups %xmm0,(%rax)", "w2010"},
      {"f30f1008", "movss (%rax),%xmm1", "r2010"},
      {"0f1700", "movhps %xmm0,(%rax)", "w2010"},
      {"c5fe6f00", "vmovdqu (%rax),%ymm0", "r2010"},
      {"c5fe7f00", "vmovdqu %ymm0,(%rax)", "w2010"},
      {"c4e37d390801", "vextracti128 $1,%ymm1,(%rax)", "w2010"},
      {"660f3a140803", "pextrb $3,%xmm1,(%rax)", "w2010"},
      {"c4e27d1808", "vbroadcastss (%rax),%ymm1", "r2010"},
  });
}

TEST(AccessDecoderTest, SystemAndCache) {
  ExpectTraces({
      {"660f38f83e", "movdir64b (%rsi),%rdi", "r6008 w7008"},
      {"0f01c8", "monitor", "r2010"},
      {"0fae38", "clflush (%rax)", "r2010"},
      {"660fae30", "clwb (%rax)", "r2010"},
      {"0f01fc", "clzero", "w2000"},
      {"0f0138", "invlpg (%rax)", ""},
      {"660f388206", "invpcid (%rsi),%rax", "r6008"},
      {"0f1808", "prefetcht0 (%rax)", ""},
      {"0f1f00", "nopl (%rax)", ""},
      {"0f0110", "lgdt (%rax)", "r2010"},
      {"0f0108", "sidt (%rax)", "w2010"},
      {"0f0008", "str (%rax)", "w2010"},
      {"0f0120", "smsw (%rax)", "w2010"},
      {"0f0100", "sgdt (%rax)", "w2010"},
      {"ec", "in %dx,%al", ""},
      {"e680", "out %al,$0x80", ""},
      {"0f31", "rdtsc", ""},
      {"0f05", "syscall", ""},
      {"f4", "hlt", ""},
      {"0f01c1", "vmcall", ""},
      {"0fa2", "cpuid", ""},
      {"0f30", "wrmsr", ""},
      {"f30f0128", "rstorssp (%rax)", "unknown"},
      {"0f7803", "vmread %rax,(%rbx)", "unknown"},
      {"0f01da", "vmload", "unknown"},
      {"0f0b", "ud2", ""},
  });
}

// Each operand is put where it ends with its page, and one byte on: the next page is accessed only then.
TEST(AccessDecoderTest, OperandsHaveTheirSizes) {
  struct Sized {
    const char* code;  // with its operand at RAX
    uint64_t bytes;
    char kind;
  };
  for (const Sized& c : {
           Sized{"8a18", 1, 'r'},      Sized{"668b18", 2, 'r'},     Sized{"8b18", 4, 'r'},        Sized{"488b18", 8, 'r'},
           Sized{"8818", 1, 'w'},      Sized{"488918", 8, 'w'},     Sized{"0f01580000", 10, 'r'}, Sized{"0f0108", 10, 'w'},
           Sized{"d900", 4, 'r'},      Sized{"dd00", 8, 'r'},       Sized{"db28", 10, 'r'},       Sized{"db38", 10, 'w'},
           Sized{"df20", 10, 'r'},     Sized{"d930", 28, 'w'},      Sized{"66d930", 14, 'w'},     Sized{"dd30", 108, 'w'},
           Sized{"66dd20", 94, 'r'},   Sized{"0fae10", 4, 'r'},     Sized{"0f1000", 16, 'r'},     Sized{"0f1100", 16, 'w'},
           Sized{"f30f1000", 4, 'r'},  Sized{"f20f1000", 8, 'r'},   Sized{"0f1200", 8, 'r'},      Sized{"c5fc1000", 32, 'r'},
           Sized{"c5fc1100", 32, 'w'}, Sized{"62f17c481000", 64, 'r'}, Sized{"62f17c481100", 64, 'w'}, Sized{"0f7e00", 4, 'w'},
           Sized{"660fd600", 8, 'w'},  Sized{"c4e37d390801", 16, 'w'}, Sized{"660f3a140803", 1, 'w'}, Sized{"c4e27d1808", 4, 'r'},
           Sized{"0fb600", 1, 'r'},    Sized{"0fb700", 2, 'r'},     Sized{"486300", 4, 'r'},      Sized{"0f9400", 1, 'w'},
           Sized{"0f0000", 2, 'w'},    Sized{"0f0120", 2, 'w'},     Sized{"8c18", 2, 'w'},        Sized{"ff20", 8, 'r'},
           Sized{"0fae00", 512, 'w'},  Sized{"0fae08", 512, 'r'},   Sized{"660f388200", 16, 'r'}, Sized{"62f27d485800", 4, 'r'},
           Sized{"0f38f000", 4, 'r'},  Sized{"df08", 2, 'w'},       Sized{"660f380000", 16, 'r'}, Sized{"c4e27d3000", 16, 'r'},
       }) {
    AccessTrace inside;
    inside.registers.gpr[0] = 0x3000 - c.bytes;
    char expected[64];
    std::snprintf(expected, sizeof(expected), "%c%x", c.kind, static_cast<unsigned>(0x3000 - c.bytes));
    EXPECT_EQ(inside.Run(c.code), expected) << c.code;
    AccessTrace across;
    across.registers.gpr[0] = 0x3001 - c.bytes;
    std::snprintf(expected, sizeof(expected), "%c%x %c3000", c.kind, static_cast<unsigned>(0x3001 - c.bytes), c.kind);
    EXPECT_EQ(across.Run(c.code), c.bytes == 1 ? std::string(1, c.kind) + "3000" : expected) << c.code;
  }
}

TEST(AccessDecoderTest, ViolationSaysAllThereIs) {
  AccessTrace trace;
  trace.PutCode("488918909090909090909090909090909090");
  trace.view.Set(0x2000, PageRights(kR));
  const AccessDecoding decoding = trace.Decode();
  EXPECT_EQ(decoding.finding, AccessFinding::kViolation);
  EXPECT_EQ(decoding.violation.gpa, Gpa(0x2010));
  EXPECT_EQ(decoding.violation.gva, 0x2010u);
  EXPECT_EQ(decoding.violation.kind, AccessKind::kWrite);
  EXPECT_FALSE(decoding.violation.page_table);
  EXPECT_EQ(decoding.violation.instruction_length, 3);
  EXPECT_EQ(decoding.violation.byte_count, 16);
  EXPECT_EQ(decoding.violation.bytes[0], std::byte{0x48});
  EXPECT_EQ(decoding.violation.bytes[15], std::byte{0x90});
}

TEST(AccessDecoderTest, GpaIsWhereTheTablesLead) {
  AccessTrace trace;
  trace.tables.Map(0x7fff'1234'5000, 0x5000);
  trace.tables.Map(0x7fff'1234'6000, 0x4000);
  trace.registers.gpr[0] = 0x7fff'1234'5ffc;
  trace.PutCode("488918");
  trace.view.Set(0x4000, PageRights(kR));
  const AccessDecoding decoding = trace.Decode();
  EXPECT_EQ(decoding.finding, AccessFinding::kViolation);
  EXPECT_EQ(decoding.violation.gpa, Gpa(0x4000));
  EXPECT_EQ(decoding.violation.gva, 0x7fff'1234'6000u);
}

TEST(AccessDecoderTest, NothingRefusedIsNone) {
  AccessTrace trace;
  trace.PutCode("488918");
  EXPECT_EQ(trace.Decode().finding, AccessFinding::kNone);
}

TEST(AccessDecoderTest, BytesThatAreNoInstructionAreUnknown) {
  AccessTrace trace;
  EXPECT_EQ(trace.Run("06"), "unknown");
  EXPECT_EQ(trace.Run("f0909090"), "unknown");
  EXPECT_EQ(trace.Run("6666666666666666666666666666666690"), "unknown");
}

// --- Fetch -------------------------------------------------------------------------------------------------------------

TEST(AccessDecoderTest, FetchComesBeforeWhatTheInstructionWouldDo) {
  AccessTrace trace;
  trace.PutCode("488918");
  trace.view.Set(0x1000, PageRights(kR | kW));
  trace.view.Set(0x2000, PageRights::None());
  const AccessDecoding decoding = trace.Decode();
  EXPECT_EQ(decoding.finding, AccessFinding::kViolation);
  EXPECT_EQ(decoding.violation.kind, AccessKind::kExecute);
  EXPECT_EQ(decoding.violation.gpa, Gpa(0x1000));
  EXPECT_EQ(decoding.violation.gva, 0x1000u);
  EXPECT_EQ(decoding.violation.instruction_length, 0);
  EXPECT_EQ(decoding.violation.byte_count, 0);
}

TEST(AccessDecoderTest, TheNextPageIsFetchedOnlyIfTheInstructionGoesOnThere) {
  AccessTrace trace;
  trace.registers.rip = 0x1ffd;
  trace.PutCode("488918");
  trace.view.Set(0x2000, PageRights(kR | kW));
  EXPECT_EQ(trace.Decode().finding, AccessFinding::kNone);  // the page's own data may be written
  trace.registers.rip = 0x1ffe;
  trace.PutCode("488918");
  const AccessDecoding decoding = trace.Decode();
  EXPECT_EQ(decoding.finding, AccessFinding::kViolation);
  EXPECT_EQ(decoding.violation.kind, AccessKind::kExecute);
  EXPECT_EQ(decoding.violation.gpa, Gpa(0x2000));
  EXPECT_EQ(decoding.violation.gva, 0x2000u);
  EXPECT_EQ(decoding.violation.instruction_length, 0);
  EXPECT_EQ(decoding.violation.byte_count, 2);
}

TEST(AccessDecoderTest, BytesStopWithThePageWhereTheInstructionDoes) {
  AccessTrace trace;
  trace.registers.rip = 0x1ffd;
  trace.PutCode("488918");
  trace.view.Set(0x2000, PageRights(kR | kKx));
  EXPECT_EQ(trace.Decode().violation.byte_count, 3);
  trace.registers.rip = 0x1ffe;
  trace.PutCode("488918");
  EXPECT_EQ(trace.Decode().violation.byte_count, 16);
  EXPECT_EQ(trace.Decode().violation.instruction_length, 3);
}

TEST(AccessDecoderTest, ExecutionByModeOnlyWhereItIsOn) {
  AccessTrace trace;
  for (uint64_t page = 0; page < 0x10000; page += kPageBytes) trace.tables.Map(page, page, FakePageTables::kAll);
  trace.PutCode("90");
  trace.view.Set(0x1000, PageRights(kR | kUx));
  EXPECT_EQ(trace.Decode().finding, AccessFinding::kViolation);
  trace.registers.cpl = 3;
  EXPECT_EQ(trace.Decode().finding, AccessFinding::kViolation);
  trace.registers.mode_based_execution = true;
  EXPECT_EQ(trace.Decode().finding, AccessFinding::kNone);
  trace.registers.cpl = 0;
  EXPECT_EQ(trace.Decode().finding, AccessFinding::kViolation);
}

TEST(AccessDecoderTest, CodeInAnOverlayIsReadThere) {
  AccessTrace trace;
  trace.PutCode("90");
  std::array<std::byte, kPageBytes> page{};
  page[0] = std::byte{0x50};
  trace.view.Overlay(0x1000, page.data());
  trace.view.Set(0x8000, PageRights(kR));
  const AccessDecoding decoding = trace.Decode();
  EXPECT_EQ(decoding.finding, AccessFinding::kViolation);
  EXPECT_EQ(decoding.violation.gpa, Gpa(0x87f8));
}

TEST(AccessDecoderTest, CodeThatIsNotMemoryIsUnknown) {
  AccessTrace trace;
  trace.tables.Map(0x1000, 0xe000'0000);
  EXPECT_EQ(trace.Decode().finding, AccessFinding::kUnknown);
}

// --- Page tables -------------------------------------------------------------------------------------------------------

TEST(AccessDecoderTest, EveryTableOnTheWayIsAnAccess) {
  AccessTrace trace;
  trace.refuse_tables = true;
  // Top table, then three made for 0, for the fetch; the data's are the same.
  EXPECT_EQ(trace.Run("488b18"), "R800000 R801000 R802000 R803008 r2010");
}

TEST(AccessDecoderTest, AccessedAndDirtyAreWritesOfTheTable) {
  AccessTrace trace;
  trace.tables.Map(0x2000, 0x2000, FakePageTables::kPresent | FakePageTables::kWritable);
  trace.PutCode("488b18");
  trace.view.Set(0x803000, PageRights(kR));
  AccessDecoding decoding = trace.Decode();
  EXPECT_EQ(decoding.finding, AccessFinding::kViolation);
  EXPECT_EQ(decoding.violation.kind, AccessKind::kWrite);
  EXPECT_TRUE(decoding.violation.page_table);
  EXPECT_EQ(decoding.violation.gpa, Gpa(0x803010));
  EXPECT_EQ(decoding.violation.gva, std::nullopt);
  EXPECT_EQ(decoding.violation.instruction_length, 3);
  trace.tables.Map(0x2000, 0x2000, FakePageTables::kAll & ~FakePageTables::kDirty);
  EXPECT_EQ(trace.Decode().finding, AccessFinding::kNone);
  trace.PutCode("488918");
  EXPECT_EQ(trace.Decode().violation.gpa, Gpa(0x803010));
  trace.tables.Map(0x2000, 0x2000);
  EXPECT_EQ(trace.Decode().finding, AccessFinding::kNone);
  trace.registers.table_reads_need_write = true;
  decoding = trace.Decode();
  EXPECT_EQ(decoding.finding, AccessFinding::kViolation);
  EXPECT_EQ(decoding.violation.gpa, Gpa(0x803008));  // of the fetch
}

TEST(AccessDecoderTest, TheGuestsOwnFaultComesFirst) {
  AccessTrace trace;
  trace.tables.Map(0x2000, 0x2000, 0);
  EXPECT_EQ(trace.Run("488b18"), "fault");
  EXPECT_EQ(trace.Run("ff30"), "fault");
  EXPECT_EQ(trace.Run("48a5"), "r6008 w7008");
  trace.registers.gpr[7] = 0x2008;
  EXPECT_EQ(trace.Run("48a5"), "r6008 fault");
  trace.registers.gpr[0] = 0x8000'0000'0000;
  EXPECT_EQ(trace.Run("488b18"), "fault");
  trace.tables.Map(0x1000, 0x1000, 0);
  EXPECT_EQ(trace.Run("90"), "fault");
}

TEST(AccessDecoderTest, UserModeMeetsSupervisorPages) {
  AccessTrace trace;
  trace.registers.cpl = 3;
  trace.tables.Map(0x2000, 0x2000, FakePageTables::kAll & ~FakePageTables::kUser);
  EXPECT_EQ(trace.Run("488b18"), "fault");
  EXPECT_EQ(trace.Run("488b1b"), "r3020");
}

// --- Strings, bits, ports ----------------------------------------------------------------------------------------------

TEST(InstructionShapeTest, SaysWhatPortInstructionsAre) {
  struct {
    const char* code;
    uint8_t length;
    bool port, string, input, repeat;
  } constexpr kCases[] = {
      {"ec", 1, true, false, true, false},       // in al, dx
      {"66e580", 3, true, false, true, false},   // in ax, 0x80
      {"e680", 2, true, false, false, false},    // out 0x80, al
      {"6c", 1, true, true, true, false},        // insb
      {"f3666d", 3, true, true, true, true},     // rep insw
      {"6e", 1, true, true, false, false},       // outsb
      {"f36f", 2, true, true, false, true},      // rep outsd
      {"0f30", 2, false, false, false, false},   // wrmsr
      {"f3a4", 2, false, false, false, true},    // rep movsb
  };
  for (const auto& c : kCases) {
    AccessTrace trace;
    trace.PutCode(c.code);
    const InstructionShape shape = DescribeInstruction(trace.registers, *trace.memory, trace.view);
    EXPECT_EQ(shape.length, c.length) << c.code;
    EXPECT_EQ(shape.port, c.port) << c.code;
    EXPECT_EQ(shape.port_string, c.string) << c.code;
    EXPECT_EQ(shape.port_input, c.input) << c.code;
    EXPECT_EQ(shape.repeat, c.repeat) << c.code;
    EXPECT_GE(shape.byte_count, c.length) << c.code;
  }
}

TEST(InstructionShapeTest, BytesThatAreNoInstructionHaveNone) {
  AccessTrace trace;
  trace.PutCode("06");
  EXPECT_EQ(DescribeInstruction(trace.registers, *trace.memory, trace.view).length, 0);
  trace.view.Set(AccessTrace::kCode, PageRights::None());
  const InstructionShape none = DescribeInstruction(trace.registers, *trace.memory, trace.view);
  EXPECT_EQ(none.length, 0);
  EXPECT_EQ(none.byte_count, 0);
}

TEST(LoadTargetTest, IsWhatTheInstructionWouldWriteOver) {
  AccessTrace trace;
  trace.Put<uint32_t>(trace.registers.gpr[7], 0x4433'2211);
  std::array<std::byte, 4> out{};
  for (const char* code : {"6d", "f36d", "a5"}) {  // insd, rep insd, movsd
    trace.PutCode(code);
    out = {};
    EXPECT_TRUE(LoadTarget(trace.registers, *trace.memory, trace.view, out)) << code;
    EXPECT_EQ(out[0], std::byte{0x11}) << code;
    EXPECT_EQ(out[3], std::byte{0x44}) << code;
  }
  trace.PutCode("ed");  // in eax, dx
  EXPECT_FALSE(LoadTarget(trace.registers, *trace.memory, trace.view, out));
  // Over the edge of a page that cannot be read: what can be is there.
  trace.PutCode("6d");
  trace.registers.gpr[7] = 0x7ffe;
  trace.Put<uint16_t>(0x7ffe, 0x6655);
  trace.view.Set(0x8000, PageRights::None());
  out = {};
  EXPECT_FALSE(LoadTarget(trace.registers, *trace.memory, trace.view, out));
  EXPECT_EQ(out[0], std::byte{0x55});
  EXPECT_EQ(out[1], std::byte{0x66});
  EXPECT_EQ(out[2], std::byte{0});
}

TEST(AccessDecoderTest, ARepeatThatIsDoneAccessesNothing) {
  AccessTrace trace;
  trace.registers.gpr[1] = 0x1'0000'0000;
  EXPECT_EQ(trace.Run("f348a5"), "r6008 w7008");
  EXPECT_EQ(trace.Run("67f3a4"), "");  // ECX
  trace.registers.gpr[1] = 0;
  EXPECT_EQ(trace.Run("f348a5"), "");
  EXPECT_EQ(trace.Run("f36e"), "");
  EXPECT_EQ(trace.Run("48a5"), "r6008 w7008");
}

TEST(AccessDecoderTest, StringsGoBackwardsFromWhereTheyPoint) {
  AccessTrace trace;
  trace.registers.rflags |= 0x400;
  EXPECT_EQ(trace.Run("f348a5"), "r6008 w7008");
}

TEST(AccessDecoderTest, ABitInARegisterReachesBeyondTheOperand) {
  AccessTrace trace;
  trace.registers.gpr[1] = 8 * 0x1000 + 65;
  EXPECT_EQ(trace.Run("480fa308"), "r3018");
  EXPECT_EQ(trace.Run("480fab08"), "r3018 w3018");
  EXPECT_EQ(trace.Run("0fa308"), "r3018");  // bit 65: the third doubleword
  trace.registers.gpr[1] = ~uint64_t{0};
  EXPECT_EQ(trace.Run("480fa308"), "r2008");
  EXPECT_EQ(trace.Run("660fa308"), "r200e");
  EXPECT_EQ(trace.Run("480fbae0ff"), "");  // of a register
}

TEST(AccessDecoderTest, PortsAskTheBitmapWithoutPrivilege) {
  AccessTrace trace;
  trace.registers.cpl = 3;
  trace.registers.tr.limit = 0x2067;
  trace.Put<uint16_t>(0x12066, 0x68 + 0xf00);
  trace.Put<uint16_t>(0x12f68 + 0x80 / 8, 0);
  EXPECT_EQ(trace.Run("e680"), "r12066");
  trace.Put<uint16_t>(0x12066, 0xfff - 0x10);
  EXPECT_EQ(trace.Run("e680"), "r12066 r13000");  // the bitmap's second byte is in the next page
  EXPECT_EQ(trace.Run("6c"), "r12066 w7008");
  trace.Put<uint16_t>(0x12ff9, 0xffff);
  EXPECT_EQ(trace.Run("6c"), "r12066 fault");
  trace.registers.rflags |= 0x3000;
  EXPECT_EQ(trace.Run("6c"), "w7008");
}

// --- Segments and descriptors ------------------------------------------------------------------------------------------

class DescriptorTest : public testing::Test {
 protected:
  DescriptorTest() {
    trace_.Put(AccessTrace::kGdt + 0x10, kCode64A);
    trace_.Put(AccessTrace::kGdt + 0x18, kDataA);
    trace_.Put(AccessTrace::kGdt + 0x20, kData);
    trace_.Put(AccessTrace::kGdt + 0x28, kUserCode64);
    trace_.Put(AccessTrace::kGdt + 0x30, kUserData);
    trace_.Put(AccessTrace::kGdt + 0x38, kCode64);
    trace_.Put(AccessTrace::kGdt + 0x40, kTask64);
    trace_.Put(AccessTrace::kGdt + 0x50, kLocal);
    trace_.Put(AccessTrace::kGdt + 0x60, kAbsent);
    trace_.Put(AccessTrace::kGdt + 0x68, kCode32);
    trace_.Put(AccessTrace::kGdt + 0x70, kUserCode32);
    trace_.Put(AccessTrace::kLdt + 0x08, kData);
    trace_.Put<uint64_t>(AccessTrace::kTss + 4, 0x14800);   // RSP0
    trace_.Put<uint64_t>(AccessTrace::kTss + 36, 0x15808);  // IST1
  }
  std::string RunWithAx(uint16_t ax, const char* code) {
    trace_.registers.gpr[0] = ax;
    return trace_.Run(code);
  }
  // An interrupt gate of long mode, type 14.
  void PutGate(unsigned vector, uint16_t selector, unsigned ist, unsigned dpl) {
    trace_.Put<uint64_t>(AccessTrace::kIdt + vector * 16,
                         uint64_t{selector} << 16 | uint64_t{ist} << 32 | uint64_t{0x8e00 | dpl << 13} << 32 | 0x5678);
  }
  AccessTrace trace_;
};

TEST_F(DescriptorTest, SegmentRegistersAreLoadedFromTheTables) {
  EXPECT_EQ(RunWithAx(0x18, "8ed8"), "r10018");             // mov %eax,%ds
  EXPECT_EQ(RunWithAx(0x20, "8ed8"), "r10020 w10024");      // sets the accessed bit
  EXPECT_EQ(RunWithAx(0x0c, "8ee0"), "r13008 w1300c");      // fs, from the LDT
  EXPECT_EQ(RunWithAx(0x18, "8ed0"), "r10018");             // ss
  EXPECT_EQ(RunWithAx(0x30, "8ed0"), "r10030 fault");       // ss of another level
  EXPECT_EQ(RunWithAx(0, "8ed8"), "");
  EXPECT_EQ(RunWithAx(0, "8ed0"), "");
  EXPECT_EQ(RunWithAx(0x60, "8ed8"), "r10060 fault");       // not present
  EXPECT_EQ(RunWithAx(0x40, "8ed8"), "r10040 fault");       // not a segment
  EXPECT_EQ(RunWithAx(0xfff8, "8ed8"), "fault");            // behind the table
}

TEST_F(DescriptorTest, SelectorsInMemoryAreReadFirst) {
  trace_.Put<uint16_t>(0x2010, 0x20);
  EXPECT_EQ(trace_.Run("8e18"), "r2010 r10020 w10024");
  trace_.Put<uint64_t>(0x8800, 0x20);
  EXPECT_EQ(trace_.Run("0fa1"), "r8800 r10020 w10024");     // pop %fs
  trace_.Put<uint16_t>(0x2014, 0x20);
  EXPECT_EQ(trace_.Run("0fb418"), "r2010 r10020 w10024");   // lfs (%rax),%ebx
  EXPECT_EQ(trace_.Run("8cd8"), "");                        // mov %ds,%eax
}

TEST_F(DescriptorTest, SystemDescriptorsHaveSixteenBytes) {
  trace_.registers.gdt.base = 0x10fb8;  // TSS at 0x10ff8
  trace_.Put<uint64_t>(0x10ff8, kTask64);
  EXPECT_EQ(RunWithAx(0x40, "0f00d8"), "r10ff8 r11000 w10ffc");
  trace_.Put<uint64_t>(0x10ff8, kLocal);
  EXPECT_EQ(RunWithAx(0x40, "0f00d0"), "r10ff8 r11000");
  EXPECT_EQ(RunWithAx(0x40, "0f00d8"), "r10ff8 r11000 fault");
  EXPECT_EQ(RunWithAx(0, "0f00d0"), "");
}

TEST_F(DescriptorTest, InspectionReadsTheDescriptor) {
  EXPECT_EQ(RunWithAx(0x18, "0f00e0"), "r10018");  // verr
  EXPECT_EQ(RunWithAx(0x18, "0f02c8"), "r10018");  // lar %ax,%ecx
  EXPECT_EQ(RunWithAx(0x18, "0f03c8"), "r10018");  // lsl
  EXPECT_EQ(RunWithAx(0xfff8, "0f00e0"), "");
}

TEST_F(DescriptorTest, FarTransfers) {
  trace_.Put<uint32_t>(0x2010, 0x1234);
  trace_.Put<uint16_t>(0x2014, 0x10);
  EXPECT_EQ(trace_.Run("ff28"), "r2010 r10010");                // ljmp *(%rax)
  EXPECT_EQ(trace_.Run("ff18"), "r2010 r10010 w87fc");          // lcall *(%rax): two words of 4 bytes
  trace_.Put<uint16_t>(0x2014, 0x38);
  EXPECT_EQ(trace_.Run("ff18"), "r2010 r10038 w1003c w87fc");
  trace_.Put<uint16_t>(0x2018, 0x10);
  EXPECT_EQ(trace_.Run("48ff18"), "r2010 r10010 w87f8");        // 64-bit offset
  trace_.Put<uint16_t>(0x2014, 0x20);
  EXPECT_EQ(trace_.Run("ff28"), "r2010 r10020 fault");          // data
  trace_.Put<uint16_t>(0x2014, 0);
  EXPECT_EQ(trace_.Run("ff28"), "r2010 fault");
}

TEST_F(DescriptorTest, CallGatesLeadToTheInnerStack) {
  for (uint64_t page = 0; page < AccessTrace::kMapped; page += kPageBytes) trace_.tables.Map(page, page);
  trace_.registers.cpl = 3;
  trace_.Put<uint64_t>(AccessTrace::kGdt + 0x80, uint64_t{0xec00} << 32 | uint64_t{0x10} << 16);
  trace_.Put<uint16_t>(0x2014, 0x83);
  EXPECT_EQ(trace_.Run("ff18"), "r2010 r10080 r12004 w147f8");
  trace_.registers.cpl = 0;
  EXPECT_EQ(trace_.Run("ff18"), "r2010 r10080 w87f8");
}

TEST_F(DescriptorTest, FarReturnPopsTheOuterStackToo) {
  trace_.registers.gpr[4] = 0x8ff8;
  trace_.Put<uint64_t>(0x9000, 0x10);
  EXPECT_EQ(trace_.Run("48cb"), "r8ff8 r9000 r10010");
  trace_.Put<uint64_t>(0x9000, 0x2b);
  trace_.Put<uint64_t>(0x9010, 0x33);
  EXPECT_EQ(trace_.Run("48cb"), "r8ff8 r9000 r10028 w1002c");
  // The second pair is 0x1000 further on.
  trace_.Put<uint64_t>(0xa010, 0x33);
  EXPECT_EQ(trace_.Run("48ca0010"), "r8ff8 r9000 r10028 w1002c ra008");
}

TEST_F(DescriptorTest, InterruptReturnPopsFiveWordsInLongMode) {
  trace_.registers.gpr[4] = 0x8fe8;
  trace_.Put<uint64_t>(0x8ff0, 0x10);
  trace_.Put<uint64_t>(0x9008, 0x18);
  EXPECT_EQ(trace_.Run("48cf"), "r8fe8 r9000 r10010");
  trace_.Put<uint64_t>(0x9008, 0x0c);  // SS from the LDT
  EXPECT_EQ(trace_.Run("48cf"), "r8fe8 r9000 r10010 r13008 w1300c");
  trace_.registers.rflags |= 0x4000;
  EXPECT_EQ(trace_.Run("48cf"), "fault");
}

TEST_F(DescriptorTest, SoftwareInterruptsInLongMode) {
  PutGate(0x80, 0x10, 0, 0);
  EXPECT_EQ(trace_.Run("cd80"), "r11800 r10010 w87f8");
  PutGate(0x80, 0x38, 0, 0);
  EXPECT_EQ(trace_.Run("cd80"), "r11800 r10038 w1003c w87f8");
  PutGate(3, 0x10, 1, 0);
  EXPECT_EQ(trace_.Run("cc"), "r11030 r10010 r12024 w157f8");
  trace_.registers.cpl = 3;
  EXPECT_EQ(trace_.Run("cd80"), "r11800 fault");  // the gate's DPL is 0
  PutGate(0x80, 0x10, 0, 3);
  EXPECT_EQ(trace_.Run("cd80"), "r11800 r10010 r12004 w147f8");
  trace_.registers.idt.limit = 0x7ff;
  EXPECT_EQ(trace_.Run("cd80"), "fault");
}

TEST_F(DescriptorTest, EventsAreDeliveredWithoutAnInstruction) {
  trace_.registers.cpl = 3;
  PutGate(14, 0x10, 0, 0);
  trace_.Put<uint64_t>(AccessTrace::kTss + 4, 0x15028);
  EXPECT_EQ(trace_.RunEvent({.vector = 14}), "r110e0 r10010 r12004 w15018 w14ff8");
  trace_.Put<uint64_t>(AccessTrace::kTss + 4, 0x15030);
  EXPECT_EQ(trace_.RunEvent({.vector = 14}), "r110e0 r10010 r12004 w15028");
  EXPECT_EQ(trace_.RunEvent({.vector = 14, .has_error_code = true}), "r110e0 r10010 r12004 w15028");
  trace_.Put<uint64_t>(AccessTrace::kTss + 4, 0x15020);
  EXPECT_EQ(trace_.RunEvent({.vector = 14, .has_error_code = true}), "r110e0 r10010 r12004 w15018 w14ff8");
}

TEST_F(DescriptorTest, ImplicitAccessesAreTheSupervisors) {
  trace_.registers.cpl = 3;
  trace_.tables.Map(AccessTrace::kGdt, AccessTrace::kGdt, FakePageTables::kAll & ~FakePageTables::kUser);
  trace_.Put<uint16_t>(0x2010, 0x33);
  trace_.Put(AccessTrace::kGdt + 0x30, kUserData | uint64_t{1} << 40);
  EXPECT_EQ(trace_.Run("8e18"), "r2010 r10030");
}

// --- 32 and 16 bits ----------------------------------------------------------------------------------------------------

TEST_F(DescriptorTest, ThirtyTwoBitCode) {
  trace_.SetProtectedMode(true);
  trace_.registers.cs.type = 11;
  for (const Case& c : {
           Case{"8b18", "mov (%eax),%ebx", "r2010"},
           {"50", "push %eax", "w87fc"},
           {"60", "pusha", "w87fc"},
           {"61", "popa", "r8800"},
           {"e8fb000000", "call", "w87fc"},
           {"1e", "push %ds", "w87fc"},
           {"678b07", "mov (%bx),%eax", "r3020"},
           {"c8100003", "enter $16,$3", "w87fc ra03c"},
           {"6218", "bound %ebx,(%eax)", "r2010"},
       }) {
    EXPECT_EQ(trace_.Run(c.code), c.trace) << c.text;
  }
  EXPECT_EQ(trace_.Run("9a785634126800"), "r10068 w1006c w87fc");  // lcall $0x68,$0x12345678
  EXPECT_EQ(trace_.Run("ea785634126800"), "r10068 w1006c");
  trace_.registers.ds.limit = 0x2012;
  EXPECT_EQ(trace_.Run("8b18"), "fault");
  trace_.registers.ds.limit = 0x2013;
  EXPECT_EQ(trace_.Run("8b18"), "r2010");
  trace_.registers.ds.base = 0x3000;
  EXPECT_EQ(trace_.Run("8b18"), "r5010");
  trace_.registers.ds.type = 7;  // expands down
  EXPECT_EQ(trace_.Run("8b18"), "fault");
  trace_.registers.ds.limit = 0x200f;
  EXPECT_EQ(trace_.Run("8b18"), "r5010");
  trace_.registers.ds.unusable = true;
  EXPECT_EQ(trace_.Run("8b18"), "fault");
}

TEST_F(DescriptorTest, ThirtyTwoBitInterrupts) {
  trace_.SetProtectedMode(true);
  trace_.Put<uint64_t>(AccessTrace::kIdt + 0x80 * 8, uint64_t{0xee00} << 32 | uint64_t{0x68} << 16);
  EXPECT_EQ(trace_.Run("cd80"), "r11400 r10068 w1006c w87fc");
  trace_.registers.cpl = 3;
  trace_.Put<uint32_t>(AccessTrace::kTss + 4, 0x15010);
  trace_.Put<uint16_t>(AccessTrace::kTss + 8, 0x18);
  EXPECT_EQ(trace_.Run("cd80"), "r11400 r10068 w1006c r12004 w1500c w14ffc");
  trace_.registers.tr.type = 3;
  EXPECT_EQ(trace_.Run("cd80"), "r11400 r10068 w1006c unknown");
  trace_.registers.cpl = 0;
  trace_.registers.gpr[4] = 0x8ff4;
  trace_.Put<uint32_t>(0x8ff8, 0x73);
  trace_.Put<uint32_t>(0x9004, 0x33);
  EXPECT_EQ(trace_.Run("cf"), "r8ff4 r10070 w10074 r9000");
  trace_.registers.rflags |= 0x4000;
  EXPECT_EQ(trace_.Run("cf"), "unknown");
}

TEST(AccessDecoderTest, SixteenBitCode) {
  AccessTrace trace;
  trace.SetProtectedMode(false);
  trace.registers.ds.base = 0x10000;
  trace.registers.ss.base = 0x20000;
  trace.registers.gpr[3] = 0xf'3020;
  trace.registers.gpr[6] = 0x0010;
  EXPECT_EQ(trace.Run("8b00"), "r13030");          // mov (%bx,%si),%ax
  EXPECT_EQ(trace.Run("678b03"), "r103020");       // mov (%ebx),%ax
  EXPECT_EQ(trace.Run("50"), "w287fe");
  EXPECT_EQ(trace.Run("6650"), "w287fc");
  trace.registers.gpr[4] = 1;
  EXPECT_EQ(trace.Run("50"), "w2ffff w30000");     // SP wraps to 0xffff, the word does not
  trace.registers.ss.limit = 0xffff;
  EXPECT_EQ(trace.Run("50"), "fault");
}

TEST(AccessDecoderTest, RealModeHasNoDescriptors) {
  AccessTrace trace;
  trace.SetProtectedMode(false);
  trace.registers.cr0 = 0x10;
  trace.registers.idt = {0, 0x3ff};
  EXPECT_EQ(trace.Run("8ed8"), "");
  EXPECT_EQ(trace.Run("cd10"), "r40 w87fe");
  EXPECT_EQ(trace.Run("9a34120010"), "w87fe");
  EXPECT_EQ(trace.Run("cb"), "r8800");
}

TEST(AccessDecoderTest, CompatibilityModeWrapsAtFourGibibytes) {
  AccessTrace trace;
  trace.registers.cs.long_mode = false;
  trace.registers.cs.big = trace.registers.ss.big = true;
  trace.registers.gpr[0] = 0xffff'ffff'0000'3010;
  EXPECT_EQ(trace.Run("8b18"), "r3010");
  trace.registers.fs.base = 0xffff'f000;
  EXPECT_EQ(trace.Run("648b18"), "r2010");
}

// --- Vectors -----------------------------------------------------------------------------------------------------------

class VectorAccessTest : public testing::Test {
 protected:
  template <typename T>
  void PutVector(unsigned index, const std::vector<T>& elements) {
    std::memcpy(trace_.vectors.vectors[index].data(), elements.data(), elements.size() * sizeof(T));
  }
  AccessTrace trace_;
};

TEST_F(VectorAccessTest, GathersAccessTheElementsOfTheMaskFromTheLowest) {
  // vpgatherdd %ymm2,(%rax,%ymm1,4),%ymm0
  trace_.registers.gpr[0] = 0x9010;
  PutVector<int32_t>(1, {0x400, 0x800, -0x400, 0xc00, 0, 0, 0, 0x1000});
  PutVector<int32_t>(2, {-1, 1, -1, -1, 0, 0, 0, -1});
  EXPECT_EQ(trace_.Run("c4e26d900488"), "ra010 r8010 rc010 rd010");
}

TEST_F(VectorAccessTest, GathersWithWideIndicesHaveFewerElements) {
  // vpgatherqd %xmm2,(%rax,%ymm1,4),%xmm0: four indices, four doublewords
  PutVector<int64_t>(1, {0x400, 0x800, 0xc00, 0x1000});
  PutVector<int32_t>(2, {-1, -1, -1, -1, -1, -1, -1, -1});
  EXPECT_EQ(trace_.Run("c4e26d910488"), "r3010 r4010 r5010 r6010");
  // vpgatherqd %xmm2,(%rax,%xmm1,4),%xmm0: two
  EXPECT_EQ(trace_.Run("c4e269910488"), "r3010 r4010");
  // vgatherdpd %xmm2,(%rax,%xmm1,8),%xmm0: two quadwords by doubleword indices
  PutVector<int32_t>(1, {0x200, 0x400, 0x600, 0x800});
  EXPECT_EQ(trace_.Run("c4e2e99204c8"), "r3010 r4010");
}

TEST_F(VectorAccessTest, ScattersTakeAMaskRegister) {
  // vpscatterqd %ymm0,(%rax,%zmm1,8){%k1}
  PutVector<int64_t>(1, {0x200, 0x400, 0x600, 0x800, 0xa00, 0xc00, 0xe00, 0x1000});
  trace_.vectors.masks[1] = 0xff92;
  EXPECT_EQ(trace_.Run("62f27d49a104c8"), "w4010 w7010 wa010");
  // vgatherdpd (%rax,%ymm1,8),%zmm0{%k1}
  PutVector<int32_t>(1, {0x200, 0x400});
  trace_.vectors.masks[1] = 2;
  EXPECT_EQ(trace_.Run("62f2fd499204c8"), "r4010");
}

TEST_F(VectorAccessTest, MaskedMovesLeaveElementsAlone) {
  trace_.registers.gpr[0] = 0x2ff8;
  // vmaskmovps %xmm1,%xmm2,(%rax)
  PutVector<int32_t>(2, {1, 1, -1, 0});
  EXPECT_EQ(trace_.Run("c4e2692e08"), "w3000");
  PutVector<int32_t>(2, {0, -1, 0, 0});
  EXPECT_EQ(trace_.Run("c4e2692e08"), "w2ffc");
  PutVector<int32_t>(2, {0, 0, 0, 0});
  EXPECT_EQ(trace_.Run("c4e2692e08"), "");
  // vpmaskmovq (%rax),%ymm2,%ymm1
  PutVector<int64_t>(2, {-1, 0, 0, -1});
  EXPECT_EQ(trace_.Run("c4e2ed8c08"), "r2ff8 r3010");
}

TEST_F(VectorAccessTest, ByteMaskedMovesGoToRdi) {
  trace_.registers.gpr[7] = 0x6ffc;
  // maskmovdqu %xmm1,%xmm2
  PutVector<uint8_t>(1, {0, 0x7f, 0, 0, 0, 0x80});
  EXPECT_EQ(trace_.Run("660ff7d1"), "w7001");
  // maskmovq %mm1,%mm2
  trace_.vectors.mmx[1] = 0x8000'0000'0000'8000;
  EXPECT_EQ(trace_.Run("0ff7d1"), "w6ffd w7003");
}

TEST_F(VectorAccessTest, MasksOfAvx512) {
  trace_.registers.gpr[0] = 0x2fe0;
  trace_.vectors.masks[2] = 0x0100;
  EXPECT_EQ(trace_.Run("62f17c4a1108"), "w3000");   // vmovups %zmm1,(%rax){%k2}: element 8 of 16
  EXPECT_EQ(trace_.Run("62f17cca1008"), "r3000");   // zeroing
  EXPECT_EQ(trace_.Run("62f27e4a3108"), "w2fe8");   // vpmovdb: bytes
  EXPECT_EQ(trace_.Run("62f1745a5810"), "r2fe0");   // vaddps (%rax){1to16}: one for all
  EXPECT_EQ(trace_.Run("62f17e0a1108"), "");        // vmovss: bit 0
  trace_.vectors.masks[2] = 0xffff'0000;
  EXPECT_EQ(trace_.Run("62f1745a5810"), "");
  EXPECT_EQ(trace_.Run("62f17c4a1108"), "");
  trace_.vectors.masks[2] = 0x8001;
  EXPECT_EQ(trace_.Run("62f17c4a1108"), "w2fe0 w301c");
  EXPECT_EQ(trace_.Run("62f27d4a8b08"), "w2fe0");   // vpcompressd: two elements, side by side
  trace_.vectors.masks[2] = 0xff80;
  EXPECT_EQ(trace_.Run("62f27d4a8b08"), "w2fe0 w3000");
  trace_.vectors.broken = true;
  EXPECT_EQ(trace_.Run("62f17c4a1108"), "unknown");
  EXPECT_EQ(trace_.Run("62f17c481108"), "w2fe0 w3000");
}

TEST_F(VectorAccessTest, XsaveAccessesTheComponentsAskedFor) {
  trace_.vectors.components[2] = {.offset = 576, .bytes = 256, .aligned = false};
  trace_.vectors.components[9] = {.offset = 2688, .bytes = 8, .aligned = false};
  trace_.registers.xcr0 = 0x207;
  trace_.registers.gpr[2] = 0;
  trace_.registers.gpr[0] = 7;
  trace_.PutCode("0fae27");  // xsave (%rdi)
  const auto run = [&](uint64_t at, uint64_t features, const char* code) {
    trace_.registers.gpr[7] = at;
    trace_.registers.gpr[0] = features;
    return trace_.Run(code);
  };
  EXPECT_EQ(run(0x7dc0, 7, "0fae27"), "w7dc0 w8000");             // header at 0x7fc0, AVX from 0x8000 on
  EXPECT_EQ(run(0x7dc0, 3, "0fae27"), "w7dc0");
  EXPECT_EQ(run(0x7e00, 3, "0fae27"), "w7e00 r8000 w8000");       // the header is read and written
  EXPECT_EQ(run(0x7e00, 0, "0fae27"), "r8000 w8000");
  EXPECT_EQ(run(0x7800, 0x207, "0fae27"), "w7800 w8280");         // component 9 at 2688
  EXPECT_EQ(run(0x7800, 0x207, "0fc727"), "w7800");               // xsavec: packed
  EXPECT_EQ(run(0x7cc0, 0x207, "0fc727"), "w7cc0 w8000");
  EXPECT_EQ(run(0x7dc8, 7, "0fae27"), "fault");                   // not aligned
  trace_.vectors.broken = true;
  EXPECT_EQ(run(0x7dc0, 7, "0fae27"), "w7dc0 unknown");
}

TEST_F(VectorAccessTest, XrstorReadsWhatTheHeaderHas) {
  trace_.vectors.components[2] = {.offset = 576, .bytes = 256, .aligned = false};
  trace_.registers.gpr[2] = 0;
  trace_.registers.gpr[0] = 7;
  trace_.registers.gpr[7] = 0x7dc0;
  trace_.Put<uint64_t>(0x7fc0, 7);
  EXPECT_EQ(trace_.Run("0fae2f"), "r7fc0 r8000");  // xrstor (%rdi)
  trace_.Put<uint64_t>(0x7fc0, 3);
  EXPECT_EQ(trace_.Run("0fae2f"), "r7fc0");
  trace_.registers.gpr[7] = 0x7e00;
  trace_.Put<uint64_t>(0x8000, 3);
  EXPECT_EQ(trace_.Run("0fae2f"), "r8000 r7e00");
  EXPECT_EQ(trace_.Run("0fc71f"), "r8000 fault");  // xrstors of a standard area
}

}  // namespace
}  // namespace vmm
