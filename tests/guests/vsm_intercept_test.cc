// What VTL1 is told of an access that it does not allow, every field of it, and what becomes of the access.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/modes.h"
#include "tests/guests/runtime/test.h"

// Instructions whose address and bytes are known.
asm(R"(
.text
.code64
guest_probe_load:
  movq (%rdi), %rax
guest_probe_loaded:
  ret
guest_probe_store:
  movb $0x5a, 7(%rdi)
guest_probe_stored:
  ret
guest_probe_jump:
  jmp *%rdi
)");

extern "C" {
extern char guest_probe_load[], guest_probe_loaded[], guest_probe_store[], guest_probe_stored[], guest_probe_jump[];
extern uint64_t page_directories[];
}

namespace guest {
namespace {

constexpr uint64_t kAlias = 0x7000'0000;  // of the 2 MiB around the page; not RAM itself
constexpr uint64_t kLargePage = 0x20'0000;
constexpr uint64_t kResumeFlag = 1 << 16;

uint64_t g_page;

uint64_t AliasOf(uint64_t gpa) { return kAlias + gpa % kLargePage; }
uint64_t At(const char* label) { return reinterpret_cast<uint64_t>(label); }

void SetUp() {
  EnableProtection();
  if (g_page != 0) return;
  g_page = GpaOf(AllocatePages(1));
  page_directories[kAlias >> 21] = g_page / kLargePage * kLargePage | 0x87;
  OnEachCpu([] { WriteCr3(ReadCr3()); });
}

// Calls the probe with marks in all registers that it leaves alone.
uint64_t Probe(const char* probe, uint64_t gva) {
  Registers r{.rax = 0x1111, .rbx = 0x2222, .rcx = 0x3333, .rdx = 0x4444, .rsi = 0x5555, .rdi = gva,
              .r8 = 0x8888, .r9 = 0x9999, .r10 = 0x1010, .r11 = 0x1111, .r12 = 0x1212, .r13 = 0x1313};
  CallWithRegisters(At(probe), r);
  return r.rax;
}

void ExpectMessage(const vmm::HvMessage& message) {
  EXPECT_EQ(message.header.type, vmm::HvMessageType::kGpaIntercept);
  EXPECT_GE(message.header.payload_size, 80);
  EXPECT_EQ(message.header.flags, 0);
  EXPECT_EQ(message.header.origination_id, 0u);
}

void ExpectHeader(const vmm::HvMemoryIntercept& m, vmm::HvInterceptAccess access, uint16_t cpl) {
  EXPECT_EQ(m.header.vp_index, ThisCpuNumber());
  EXPECT_EQ(m.header.access, access);
  EXPECT_EQ(m.header.execution_state, cpl | vmm::kHvExecutionProtected | vmm::kHvExecutionLongMode);
  EXPECT_EQ(m.header.cs.selector, cpl == 0 ? 0x08 : 0x2b);
  EXPECT_EQ(m.header.cs.attributes & 0x60ff, 0x209b | cpl << 5);  // long, present, code that was used, of that level
  EXPECT_EQ(m.header.cs.base, 0u);
  EXPECT_EQ(m.cache_type, vmm::kHvCacheWriteBack);
  EXPECT_EQ(m.tpr_priority, 0);
  EXPECT_EQ(m.reserved, 0);
}

void ExpectInstruction(const vmm::HvMemoryIntercept& m, const char* begin, const char* end) {
  EXPECT_EQ(m.header.rip, At(begin));
  EXPECT_EQ(m.header.instruction_length, end - begin);
  EXPECT_GE(m.instruction_byte_count, end - begin);
  EXPECT_EQ(memcmp(m.instruction_bytes, begin, static_cast<size_t>(end - begin)), 0);
}

TEST(AReadIsDescribed) {
  SetUp();
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const Protected page(g_page, kNoAccess);
    uint64_t rax = 0;
    const Intercepts seen = Intercepted(Reply::kSkip, [&] { rax = Probe(guest_probe_load, AliasOf(g_page + 0x128)); });
    ASSERT_EQ(seen.count, 1u);
    EXPECT_EQ(rax, 0x1111u);  // the instruction was skipped: nothing was read
    ExpectMessage(seen.messages[0]);
    const vmm::HvMemoryIntercept& m = seen.Memory(0);
    ExpectHeader(m, vmm::HvInterceptAccess::kRead, 0);
    ExpectInstruction(m, guest_probe_load, guest_probe_loaded);
    EXPECT_EQ(m.access_info, vmm::kHvAccessGvaValid | vmm::kHvAccessGvaGpaValid);
    EXPECT_EQ(m.gva, AliasOf(g_page + 0x128));
    EXPECT_EQ(m.gpa, g_page + 0x128);
    EXPECT_EQ(m.header.rflags & (kResumeFlag | 0x202), kResumeFlag | 0x202);
  });
}

TEST(AWriteIsDescribed) {
  const Protected page(g_page, kReadExecute);
  const Intercepts seen = Intercepted(Reply::kSkip, [] { (void)Probe(guest_probe_store, g_page); });
  ASSERT_EQ(seen.count, 1u);
  ExpectMessage(seen.messages[0]);
  const vmm::HvMemoryIntercept& m = seen.Memory(0);
  ExpectHeader(m, vmm::HvInterceptAccess::kWrite, 0);
  ExpectInstruction(m, guest_probe_store, guest_probe_stored);
  EXPECT_EQ(m.gva, g_page + 7);
  EXPECT_EQ(m.gpa, g_page + 7);
  EXPECT_EQ(Load<uint64_t>(g_page), 0u);
}

TEST(RegistersAreInTheMessageAndInVtl1s) {
  const Protected page(g_page, kNoAccess);
  static VtlFrame frame;
  SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame& f) {
    frame = f;
    f.rax = 0xcafe;  // VTL1 answers for the memory
    const uint64_t behind = reinterpret_cast<uint64_t>(guest_probe_loaded);
    (void)SetRegister(HvRegisterName::kRip, {behind, 0}, {.input_vtl = OfVtl(0)});
  });
  const uint64_t rax = Probe(guest_probe_load, g_page);
  const Intercepts seen = SeenOf(0);
  SetReply(Reply::kFatal);
  EXPECT_EQ(rax, 0xcafeu);
  ASSERT_EQ(seen.count, 1u);
  const vmm::HvMemoryIntercept& m = seen.Memory(0);
  EXPECT_EQ(frame.rbx, 0x2222u);
  EXPECT_EQ(frame.rdi, g_page);
  EXPECT_EQ(frame.r13, 0x1313u);
  if (seen.messages[0].header.payload_size < 240) SKIP("the short message");
  const uint64_t want[] = {0x1111, 0x3333, 0x4444, 0x2222};  // RAX, RCX, RDX, RBX
  for (uint32_t i = 0; i < 4; ++i) EXPECT_EQ(m.gprs[i], want[i]);
  EXPECT_EQ(m.gprs[6], 0x5555u);
  EXPECT_EQ(m.gprs[7], g_page);
  EXPECT_EQ(m.gprs[8], 0x8888u);
  EXPECT_EQ(m.gprs[13], 0x1313u);
  EXPECT_EQ(m.ss.selector, 0x10);
}

TEST(UserModeIsDescribed) {
  const Protected page(g_page, kNoAccess);
  const Intercepts seen = Intercepted(Reply::kSkip, [] {
    EXPECT_FALSE(InUserMode([] {
                   const uint64_t at = At(guest_probe_load);
                   asm volatile("call *%0" : : "r"(at), "D"(g_page + 8) : "rax", "memory");
                 }).raised());
  });
  ASSERT_EQ(seen.count, 1u);
  ExpectHeader(seen.Memory(0), vmm::HvInterceptAccess::kRead, 3);
  ExpectInstruction(seen.Memory(0), guest_probe_load, guest_probe_loaded);
  EXPECT_EQ(seen.Memory(0).gpa, g_page + 8);
}

TEST(AFetchIsDescribed) {
  const Protected page(g_page, kNoAccess);
  SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame&) {
    const uint64_t behind = reinterpret_cast<uint64_t>(guest_probe_loaded);  // a return
    (void)SetRegister(HvRegisterName::kRip, {behind, 0}, {.input_vtl = OfVtl(0)});
  });
  (void)Probe(guest_probe_jump, AliasOf(g_page + 0x40));
  const Intercepts seen = SeenOf(0);
  SetReply(Reply::kFatal);
  ASSERT_EQ(seen.count, 1u);
  const vmm::HvMemoryIntercept& m = seen.Memory(0);
  ExpectHeader(m, vmm::HvInterceptAccess::kExecute, 0);
  EXPECT_EQ(m.header.rip, AliasOf(g_page + 0x40));
  EXPECT_EQ(m.instruction_byte_count, 0);
  EXPECT_EQ(m.gpa & ~0xfffull, g_page);
}

// The same access again and again, until VTL1 lets it.
TEST(AnAccessIsTriedAgainUntilItIsAllowed) {
  Store<uint64_t>(g_page, 0x0123'4567'89ab'cdef);
  const Protected page(g_page, kNoAccess);
  SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame&) {
    if (SeenOf(0).count == 5) (void)ModifyProtection(g_page, vmm::kHvProtectAll);
  });
  const uint64_t rax = Probe(guest_probe_load, g_page);
  const Intercepts seen = SeenOf(0);
  SetReply(Reply::kFatal);
  EXPECT_EQ(rax, 0x0123'4567'89ab'cdefu);
  EXPECT_EQ(seen.count, 5u);
  for (uint32_t i = 1; i < 5; ++i) EXPECT_EQ(memcmp(&seen.messages[0], &seen.messages[i], sizeof(vmm::HvMessage)), 0);
}

TEST(AnAccessThatIsLetGoesThrough) {
  Store<uint64_t>(g_page, 0);
  const Protected page(g_page, kReadExecute);
  const Intercepts seen = Intercepted(Reply::kLift, [] { (void)Probe(guest_probe_store, g_page); });
  EXPECT_EQ(seen.count, 1u);
  EXPECT_EQ(Load<uint8_t>(g_page + 7), 0x5a);
}

TEST(AnAccessMayBeAFault) {
  Store<uint64_t>(g_page, 0);
  const Protected page(g_page, kReadExecute);
  SetReply(Reply::kRaise);
  const Fault fault = Catch([] { (void)Probe(guest_probe_store, g_page); });
  EXPECT_EQ(SeenOf(0).count, 1u);
  SetReply(Reply::kFatal);
  EXPECT_EQ(fault.vector, kGeneralProtection);
  EXPECT_EQ(fault.error_code, 0u);
  EXPECT_EQ(fault.rip, At(guest_probe_store));
  EXPECT_EQ(Load<uint64_t>(g_page), 0u);
}

TEST(TaskPriorityIsInTheMessage) {
  const Protected page(g_page, kNoAccess);
  WriteCr8(4);
  const Intercepts seen = Intercepted(Reply::kSkip, [] { (void)Probe(guest_probe_load, g_page); });
  WriteCr8(0);
  ASSERT_EQ(seen.count, 1u);
  EXPECT_EQ(seen.Memory(0).header.instruction_length, (guest_probe_loaded - guest_probe_load) | 4 << 4);
}

// A page fault of VTL0's own comes first: what is not mapped is no access to a page.
TEST(Vtl0sOwnFaultsComeFirst) {
  constexpr uint64_t kUnmapped = 0x6fe0'0000;
  page_directories[kUnmapped >> 21] = 0;
  WriteCr3(ReadCr3());
  const Protected page(g_page, kNoAccess);
  const Intercepts seen = Intercepted(Reply::kSkip, [] {
    const Fault fault = Catch([] { (void)Load<uint64_t>(kUnmapped); });
    EXPECT_EQ(fault.vector, kPageFault);
    EXPECT_EQ(fault.address, kUnmapped);
  });
  EXPECT_EQ(seen.count, 0u);
  page_directories[kUnmapped >> 21] = kUnmapped | 0x87;
}

TEST(EntriesSayInterrupt) {
  const Protected page(g_page, kNoAccess);
  const uint32_t before = CountsOf(0).interrupts.Load(), others = CountsOf(0).others.Load();
  (void)Intercepted(Reply::kSkip, [] { (void)Load<uint8_t>(g_page); });
  EXPECT_EQ(CountsOf(0).interrupts.Load(), before + 1);
  EXPECT_EQ(CountsOf(0).others.Load(), others);
}

}  // namespace
}  // namespace guest
