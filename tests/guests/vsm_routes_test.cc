// Every way in which VTL0 can touch memory, tried on a page that it may not touch: each is an intercept at the right address, nothing
// is read or written meanwhile, and the access goes through once VTL1 lets it.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/modes.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"

extern "C" uint64_t page_directories[];

namespace guest {
namespace {

using vmm::HvInterceptAccess;

constexpr uint8_t kFill = 0x81;

uint64_t g_page;   // the protected one, between two that are not
uint64_t g_other;  // for the other operand

enum class Kind : uint8_t { kRead, kWrite };

// One access of `bytes` at RDI; RSI has the other operand, which is nowhere near. Ring 3 too unless it is ring 0's alone.
struct Route {
  const char* name;
  Kind kind;
  void (*run)(uint64_t at, uint64_t other);
  bool ring0_only = false;
  bool reads_first = false;  // a read and write: of a page without access the read is what fails
};

#define ROUTE(kind, text, ...)                                                                                      \
  {text, Kind::kind, [](uint64_t at, uint64_t other) {                                                              \
     asm volatile(text : "+D"(at), "+S"(other) : : "rax", "rcx", "rdx", "rbx", "r8", "memory", "cc");          \
   } __VA_OPT__(, ) __VA_ARGS__}

const Route kRoutes[] = {
    ROUTE(kRead, "movb (%%rdi), %%al"),
    ROUTE(kRead, "movzwl (%%rdi), %%eax"),
    ROUTE(kRead, "addq (%%rdi), %%rax"),
    ROUTE(kRead, "testl $1, (%%rdi)"),
    ROUTE(kRead, "btl $3, (%%rdi)"),
    ROUTE(kRead, "imulq $3, (%%rdi), %%rax"),
    ROUTE(kRead, "movbe (%%rdi), %%eax"),
    ROUTE(kRead, "pushq (%%rdi); popq %%rax"),
    ROUTE(kRead, "xchgq %%rsi, %%rdi; lodsb"),
    ROUTE(kRead, "xchgq %%rsi, %%rdi; movl $2, %%ecx; rep movsb"),
    ROUTE(kRead, "movl $3, %%ecx; xorl %%eax, %%eax; repne scasb"),
    ROUTE(kRead, "movl $1, %%ecx; repe cmpsb"),
    ROUTE(kRead, "movups (%%rdi), %%xmm0"),
    ROUTE(kRead, "pxor (%%rdi), %%xmm0"),
    ROUTE(kRead, "fldl (%%rdi); fstp %%st(0)"),
    ROUTE(kRead, "fldcw (%%rdi); fninit"),
    ROUTE(kWrite, "movb $1, (%%rdi)"),
    ROUTE(kWrite, "movq %%rsi, (%%rdi)"),
    ROUTE(kWrite, "movnti %%rsi, (%%rdi)"),
    ROUTE(kWrite, "cmpxchg8b (%%rdi)", false, true),
    ROUTE(kWrite, "incl (%%rdi)", false, true),
    ROUTE(kWrite, "lock xaddq %%rax, (%%rdi)", false, true),
    ROUTE(kWrite, "lock cmpxchgq %%rsi, (%%rdi)", false, true),
    ROUTE(kWrite, "xchgb %%al, (%%rdi)", false, true),
    ROUTE(kWrite, "lock btsq $5, (%%rdi)", false, true),
    ROUTE(kWrite, "lock cmpxchg16b (%%rdi)", false, true),
    ROUTE(kWrite, "xorl %%eax, %%eax; stosb"),
    ROUTE(kWrite, "movl $2, %%ecx; rep movsb"),
    ROUTE(kWrite, "xorl %%eax, %%eax; movl $3, %%ecx; rep stosq"),
    ROUTE(kWrite, "setc (%%rdi)"),
    ROUTE(kWrite, "pxor %%xmm0, %%xmm0; movups %%xmm0, (%%rdi)"),
    ROUTE(kWrite, "pxor %%xmm0, %%xmm0; movntdq %%xmm0, (%%rdi)"),
    ROUTE(kWrite, "fld1; fstpt (%%rdi)"),
    ROUTE(kWrite, "fnstcw (%%rdi)"),
    ROUTE(kWrite, "stmxcsr (%%rdi)"),
    ROUTE(kWrite, "fxsave (%%rdi)"),
    ROUTE(kWrite, "pushq %%rsi; popq (%%rdi)"),
    ROUTE(kWrite, "sgdt (%%rdi)"),
    // Port 0xe8 is a scratch register: the emulator of the host's kernel moves these.
    ROUTE(kRead, "xchgq %%rsi, %%rdi; movl $0xe8, %%edx; outsb", true),
    ROUTE(kRead, "xchgq %%rsi, %%rdi; movl $0xe8, %%edx; movl $2, %%ecx; rep outsb", true),
    ROUTE(kWrite, "movl $0xe8, %%edx; xorl %%eax, %%eax; outb %%al, %%dx; insb", true),
    ROUTE(kWrite, "movl $0xe8, %%edx; xorl %%eax, %%eax; outb %%al, %%dx; movl $3, %%ecx; rep insb", true),
    ROUTE(kWrite, "movl $0xe8, %%edx; xorl %%eax, %%eax; outb %%al, %%dx; movl $3, %%ecx; std; rep insb; cld", true),
    // And these, from and to the TEST machine's device memory.
    ROUTE(kRead, "movq %%rdi, %%rsi; movl $0xff000000, %%edi; movsl"),
    ROUTE(kWrite, "movl $0xff000000, %%esi; movl $0, (%%rsi); movsl"),
    ROUTE(kWrite, "movl $0xff000000, %%esi; movl $0, (%%rsi); movl $2, %%ecx; rep movsb"),
    // The system's own.
    ROUTE(kRead, "movq %%rsp, %%r8; cli; movq %%rdi, %%rsp; popq %%rax; movq %%r8, %%rsp; sti", true),
    ROUTE(kWrite, "movq %%rsp, %%r8; cli; leaq 8(%%rdi), %%rsp; pushq %%rax; movq %%r8, %%rsp; sti", true),
    ROUTE(kWrite, "movq %%rsp, %%r8; cli; leaq 8(%%rdi), %%rsp; call 1f; 1: movq %%r8, %%rsp; sti", true),
};

bool Lacks(const char* name) { return strcmp(name, "movbe (%%rdi), %%eax") == 0 && (Cpuid(1).ecx >> 22 & 1) == 0; }

void Fill() {
  for (uint64_t i = 0; i < 3 * kPageBytes; i += 8) Store<uint64_t>(g_page - kPageBytes + i, kFill * 0x0101'0101'0101'0101u);
  Store<uint64_t>(g_other, 0);
}
bool IsFilled() {
  for (uint64_t i = 0; i < kPageBytes; i += 8) {
    if (Load<uint64_t>(g_page + i) != kFill * 0x0101'0101'0101'0101u) return false;
  }
  return true;
}

void SetUp() {
  EnableProtection();
  if (g_page != 0) return;
  g_page = GpaOf(AllocatePages(3)) + kPageBytes;
  g_other = GpaOf(AllocatePages(1)) + 0x200;
}

// Runs it with the page protected; the first intercept frees the page.
void Try(Tally& tally, const Route& route, uint32_t flags, bool user) {
  Fill();
  const uint64_t at = g_page + 0x40;
  if (Protect(g_page, flags) != Success(1)) Fatal("cannot protect");
  static bool untouched;
  SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame&) {
    untouched = IsFilled();
    if (ModifyProtection(g_page, vmm::kHvProtectAll) != Success(1)) Fatal("cannot free");
  });
  if (user) {
    if (InUserMode([&] { route.run(at, g_other); }).raised()) tally.Equal(1, 0, route.name);
  } else {
    route.run(at, g_other);
  }
  const Intercepts& seen = SeenOf(ThisCpuNumber());
  tally.Equal(seen.count | 0x100, 0x101, route.name);  // shown so that a missing intercept is told from a lost write
  if (seen.count != 0) {
    const bool write = route.kind == Kind::kWrite && !(route.reads_first && flags == kNoAccess);
    tally.Equal(seen.Memory(0).gpa, at, route.name);
    tally.Equal(static_cast<uint64_t>(seen.Memory(0).header.access),
                static_cast<uint64_t>(write ? HvInterceptAccess::kWrite : HvInterceptAccess::kRead), route.name);
    tally.True(untouched, route.name);
  }
  SetReply(Reply::kFatal);
  if (seen.count == 0) (void)Protect(g_page, vmm::kHvProtectAll);
  if (route.kind == Kind::kWrite && !route.reads_first) tally.Equal(IsFilled() ? 0x200 : 0x201, 0x201, route.name);
}

void TryAll(Kind kind, uint32_t flags, bool user) {
  SetUp();
  Tally tally;
  for (const Route& route : kRoutes) {
    if (route.kind != kind || (user && route.ring0_only) || Lacks(route.name)) continue;
    Try(tally, route, flags, user);
  }
  EXPECT_TRUE(tally.ok());
}

TEST(ReadsInRing0) { TryAll(Kind::kRead, kNoAccess, false); }
TEST(ReadsInRing3) { TryAll(Kind::kRead, kNoAccess, true); }
TEST(WritesInRing0) { TryAll(Kind::kWrite, kReadExecute, false); }
TEST(WritesInRing3) { TryAll(Kind::kWrite, kReadExecute, true); }
TEST(WritesOfPagesWithoutAnyAccess) { TryAll(Kind::kWrite, kNoAccess, false); }

TEST(AccessesAcrossAPagesEdges) {
  Tally tally;
  // The protected page is the second, then the first of the two.
  for (const uint64_t at : {g_page - 3, g_page + kPageBytes - 5}) {
    for (const bool write : {false, true}) {
      Fill();
      const Protected page(g_page, write ? kReadExecute : kNoAccess);
      uint64_t value = 0;
      const Intercepts seen = Intercepted(Reply::kLift, [&] {
        if (write) {
          asm volatile("movq %1, (%0)" : : "r"(at), "r"(uint64_t{7}) : "memory");
        } else {
          asm volatile("movq (%1), %0" : "=r"(value) : "r"(at) : "memory");
        }
      });
      tally.Equal(seen.count, 1, "intercepts");
      tally.Equal(seen.Memory(0).gpa, at < g_page ? g_page : at, "the lowest byte that fails");
      if (!write) tally.Equal(value, kFill * 0x0101'0101'0101'0101u, "what was read");
    }
  }
  EXPECT_TRUE(tally.ok());
}

// --- What the emulator of the host's kernel makes: once, with nothing of a device's lost or asked twice ------------------------

constexpr uint16_t kSelectPort = 0x510, kDataPort = 0x511;  // fw_cfg: each read of the second is the next byte of what the first chose
constexpr uint64_t kDeviceMemory = 0xff00'0000;
constexpr uint64_t kApicVersion = 0xfee0'0030;

// "QEMU" from the device, of which every read counts.
void ReadSignature(uint64_t to, uint64_t bytes, bool backwards = false) {
  Out16(kSelectPort, 0);
  if (backwards) {
    asm volatile("std; rep insb; cld" : "+D"(to), "+c"(bytes) : "d"(kDataPort) : "memory");
  } else {
    asm volatile("rep insb" : "+D"(to), "+c"(bytes) : "d"(kDataPort) : "memory");
  }
}

TEST(BytesOfAPortAreReadOnce) {
  SetUp();
  Tally tally;
  // In the page, and over either of its edges.
  for (const uint64_t at : {g_page + 0x40, g_page - 2, g_page + kPageBytes - 2}) {
    for (const uint32_t flags : {kNoAccess, kReadExecute}) {
      Fill();
      const Protected page(g_page, flags);
      const Intercepts seen = Intercepted(Reply::kLift, [&] { ReadSignature(at, 4); });
      tally.Equal(seen.count, 1, "intercepts");
      tally.Equal(seen.Memory(0).gpa, at < g_page ? g_page : at, "the lowest byte that fails");
      tally.Equal(Load<uint32_t>(at), 0x554d'4551, "what the device said");
      tally.Equal(Load<uint8_t>(at - 1) | Load<uint8_t>(at + 4) << 8, kFill * 0x101, "what is around");
      tally.Equal(In8(kDataPort), 0, "the device is behind it");
    }
  }
  Fill();
  const Protected page(g_page, kReadExecute);
  const Intercepts seen = Intercepted(Reply::kLift, [&] { ReadSignature(g_page + 0x43, 4, true); });
  tally.Equal(seen.count, 1, "intercepts, backwards");
  tally.Equal(Load<uint32_t>(g_page + 0x40), 0x5145'4d55, "what the device said, backwards");
  EXPECT_TRUE(tally.ok());
}

// VTL1 says no: the device was not asked for what would go there, nothing was written there, registers are those of before. What came
// before the page is there: iterations of their own.
TEST(BytesOfAPortThatAreNotLetStayThere) {
  SetUp();
  Fill();
  const Protected page(g_page, kReadExecute);
  SetReply(Reply::kRaise);
  const Fault fault = Catch([] { ReadSignature(g_page - 2, 4); });
  const Intercepts seen = SeenOf(ThisCpuNumber());
  SetReply(Reply::kFatal);
  EXPECT_EQ(fault.vector, kGeneralProtection);
  ASSERT_EQ(seen.count, 1u);
  EXPECT_EQ(fault.rip, seen.Memory(0).header.rip);
  EXPECT_EQ(seen.Memory(0).gprs[1], 2u);
  EXPECT_EQ(seen.Memory(0).gprs[7], g_page);
  EXPECT_EQ(seen.Memory(0).header.instruction_length, 2);
  EXPECT_EQ(Load<uint16_t>(g_page - 2), 'Q' | 'E' << 8);
  EXPECT_EQ(In8(kDataPort), 'M');
  EXPECT_TRUE(IsFilled());
}

TEST(ARepeatStopsWhereItIsRefusedAndGoesOnThere) {
  SetUp();
  Fill();
  for (uint64_t i = 0; i < 16; ++i) Store<uint8_t>(kDeviceMemory + i, static_cast<uint8_t>(0x40 + i));
  const Protected page(g_page, kNoAccess);
  uint64_t from = kDeviceMemory, to = g_page - 4, count = 8;
  const Intercepts seen = Intercepted(Reply::kLift, [&] { asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory"); });
  ASSERT_EQ(seen.count, 1u);
  EXPECT_EQ(seen.Memory(0).gpa, g_page);
  EXPECT_EQ(seen.Memory(0).gprs[1], 4u);
  EXPECT_EQ(seen.Memory(0).gprs[6], kDeviceMemory + 4);
  EXPECT_EQ(seen.Memory(0).gprs[7], g_page);
  for (uint64_t i = 0; i < 8; ++i) EXPECT_EQ(Load<uint8_t>(g_page - 4 + i), 0x40 + i);
  EXPECT_EQ(Load<uint8_t>(g_page + 4), kFill);
  EXPECT_EQ(count, 0u);
}

// What is read from the refused page does not come to the device meanwhile.
TEST(ADeviceGetsNothingOfWhatIsRefused) {
  SetUp();
  Fill();
  Store<uint64_t>(kDeviceMemory, 0x1111'1111'1111'1111);
  Out8(0xe8, 0x22);
  static bool untouched;
  const auto lift = [](const vmm::HvMessage&, VtlFrame&) {
    untouched = Load<uint64_t>(kDeviceMemory) == 0x1111'1111'1111'1111 && In8(0xe8) == 0x22;
    if (ModifyProtection(g_page, vmm::kHvProtectAll) != Success(1)) Fatal("cannot free");
  };
  {
    const Protected page(g_page, kNoAccess);
    SetReply(Reply::kCall, lift);
    uint64_t from = g_page, to = kDeviceMemory, count = 3;
    asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
    EXPECT_EQ(SeenOf(ThisCpuNumber()).count, 1u);
    EXPECT_TRUE(untouched);
    EXPECT_EQ(Load<uint64_t>(kDeviceMemory), 0x1111'1111'1181'8181u);
    Store<uint64_t>(kDeviceMemory, 0x1111'1111'1111'1111);
  }
  {
    const Protected page(g_page, kNoAccess);
    SetReply(Reply::kCall, lift);
    uint64_t from = g_page, count = 2;
    asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(0xe8) : "memory");
    EXPECT_EQ(SeenOf(ThisCpuNumber()).count, 1u);
    EXPECT_TRUE(untouched);
    EXPECT_EQ(In8(0xe8), kFill);
  }
  SetReply(Reply::kFatal);
}

// Push, pop and compare between the page and a device.
TEST(OtherInstructionsWithTwoOperands) {
  SetUp();
  Tally tally;
  Store<uint64_t>(kDeviceMemory, 0x77);
  const auto with_stack = [&](uint64_t stack, auto instruction) {
    Fill();
    const Protected page(g_page, kNoAccess);
    return Intercepted(Reply::kLift, [&] { instruction(stack); });
  };
  const Intercepts pushed = with_stack(g_page + 0x88, [](uint64_t stack) {
    asm volatile("cli; movq %%rsp, %%r8; movq %0, %%rsp; pushq (%1); movq %%r8, %%rsp; sti" : : "r"(stack), "r"(kDeviceMemory) : "r8", "memory");
  });
  tally.Equal(pushed.count, 1, "push");
  tally.Equal(Load<uint64_t>(g_page + 0x80), 0x77, "what was pushed");
  const Intercepts popped = with_stack(g_page + 0x80, [](uint64_t stack) {
    asm volatile("cli; movq %%rsp, %%r8; movq %0, %%rsp; popq (%1); movq %%r8, %%rsp; sti" : : "r"(stack), "r"(kDeviceMemory) : "r8", "memory");
  });
  tally.Equal(popped.count, 1, "pop");
  tally.Equal(Load<uint64_t>(kDeviceMemory), kFill * 0x0101'0101'0101'0101u, "what was popped");
  bool equal = false;
  const Intercepts compared = with_stack(g_page, [&](uint64_t at) {
    uint64_t from = kDeviceMemory;
    asm volatile("cmpsq; sete %0" : "=r"(equal), "+S"(from), "+D"(at) : : "memory", "cc");
  });
  tally.Equal(compared.count, 1, "compare");
  tally.True(equal, "what was compared");
  EXPECT_TRUE(tally.ok());
}

// A device in the host's kernel is asked before anybody hears of it: the store is held, and made or given up as VTL1 says.
TEST(AStoreWhoseSourceIsInTheHostsKernel) {
  if ((ReadMsr(0x1b) & 0x400) != 0) SKIP("an APIC without registers in memory");
  SetUp();
  const auto store = [] {
    uint64_t from = kApicVersion, to = g_page + 0x10;
    asm volatile("movsl" : "+S"(from), "+D"(to) : : "memory");
  };
  const uint32_t version = Load<uint32_t>(kApicVersion);
  {
    Fill();
    const Protected page(g_page, kReadExecute);
    const Intercepts seen = Intercepted(Reply::kLift, store);
    ASSERT_EQ(seen.count, 1u);
    EXPECT_EQ(seen.Memory(0).gpa, g_page + 0x10);
    EXPECT_EQ(seen.Memory(0).header.access, HvInterceptAccess::kWrite);
    EXPECT_EQ(Load<uint32_t>(g_page + 0x10), version);
  }
  {
    Fill();
    const Protected page(g_page, kReadExecute);
    SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame&) {
      if (SeenOf(ThisCpuNumber()).count == 3 && ModifyProtection(g_page, vmm::kHvProtectAll) != Success(1)) Fatal("cannot free");
    });
    store();
    EXPECT_EQ(SeenOf(ThisCpuNumber()).count, 3u);
    SetReply(Reply::kFatal);
    EXPECT_EQ(Load<uint32_t>(g_page + 0x10), version);
  }
  {
    Fill();
    const Protected page(g_page, kReadExecute);
    SetReply(Reply::kRaise);
    const Fault fault = Catch(store);
    EXPECT_EQ(SeenOf(ThisCpuNumber()).count, 1u);
    SetReply(Reply::kFatal);
    EXPECT_EQ(fault.vector, kGeneralProtection);
    EXPECT_TRUE(IsFilled());
  }
  EXPECT_TRUE(IsFilled());  // nor afterwards
}

// --- The walk through page tables -----------------------------------------------------------------------------------------

constexpr uint64_t kWindow = 0x6e00'0000;  // 2 MiB through a table of pages

// The window's first page is g_other's, its entry at `table` [0].
uint64_t MakeWindow() {
  static uint64_t table = GpaOf(AllocatePages(1));
  Store<uint64_t>(table, g_other / kPageBytes * kPageBytes | 0x7);  // neither accessed nor dirty
  page_directories[kWindow >> 21] = table | 7;
  WriteCr3(ReadCr3());
  return table;
}

TEST(APageTableThatCannotBeRead) {
  const uint64_t table = MakeWindow();
  Store<uint64_t>(g_other / kPageBytes * kPageBytes, 0x7777);
  const Protected page(table, kNoAccess);
  WriteCr3(ReadCr3());
  uint64_t value = 0;
  const Intercepts seen = Intercepted(Reply::kLift, [&] { value = Load<uint64_t>(kWindow); });
  ASSERT_EQ(seen.count, 1u);
  EXPECT_EQ(seen.Memory(0).gpa & ~0xfffull, table);
  EXPECT_EQ(seen.Memory(0).access_info & vmm::kHvAccessGvaValid, 0);
  EXPECT_EQ(seen.Memory(0).gva, 0u);
  EXPECT_EQ(seen.Memory(0).cache_type, vmm::kHvCacheWriteBack);
  EXPECT_EQ(value, 0x7777u);
}

TEST(APageTableThatCannotBeMarked) {
  const uint64_t table = MakeWindow();
  const Protected page(table, kReadExecute);
  WriteCr3(ReadCr3());
  const Intercepts seen = Intercepted(Reply::kLift, [] { Store<uint64_t>(kWindow, 0x8888); });
  ASSERT_EQ(seen.count, 1u);
  EXPECT_EQ(seen.Memory(0).gpa & ~0xfffull, table);
  EXPECT_EQ(seen.Memory(0).header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(seen.Memory(0).access_info & vmm::kHvAccessGvaValid, 0);
  EXPECT_EQ(Load<uint64_t>(table) & 0x60, 0x60u);  // accessed and dirty, now that it may be written
  EXPECT_EQ(Load<uint64_t>(g_other / kPageBytes * kPageBytes), 0x8888u);
}

// --- Events that the processor delivers -------------------------------------------------------------------------------------

TEST(AnExceptionsFrameOnAProtectedStack) {
  const Protected page(g_page, kReadExecute);
  const Intercepts seen = Intercepted(Reply::kLift, [] {
    const Fault fault = Catch([] {
      const uint64_t stack = g_page + 0x800;
      asm volatile("cli; movq %%rsp, %%r8; movq %0, %%rsp; ud2; movq %%r8, %%rsp" : : "r"(stack) : "r8", "memory");
    });
    EnableInterrupts();
    EXPECT_EQ(fault.vector, kUndefinedOpcode);
  });
  ASSERT_EQ(seen.count, 1u);
  EXPECT_EQ(seen.Memory(0).gpa & ~0xfffull, g_page);
  EXPECT_EQ(seen.Memory(0).header.access, HvInterceptAccess::kWrite);
}

// --- What the monitor reads and writes for VTL0 -----------------------------------------------------------------------------

TEST(HypercallParametersOnProtectedPages) {
  Fill();
  const uint64_t spare = g_other / kPageBytes * kPageBytes;
  const Control get{.code = HypercallCode::kGetVpRegisters, .reps = 1};
  Store<uint64_t>(spare, vmm::kHvPartitionIdSelf);
  Store<uint64_t>(spare + 8, kSelf);
  Store<uint64_t>(spare + 16, static_cast<uint64_t>(HvRegisterName::kVpIndex));
  {
    const Protected page(g_page, kNoAccess);
    // Input that may not be read, output that may not be written: no success, and nothing moves.
    EXPECT_NE(CallRaw(get.value(), g_page, spare + 0x100) & 0xffff, 0u);
    EXPECT_NE(CallRaw(get.value(), spare, g_page) & 0xffff, 0u);
    InVtl1([] { EXPECT_TRUE(IsFilled()); });
    EXPECT_EQ(CallRaw(get.value(), spare, spare + 0x100), Success(1));
  }
  {
    const Protected page(g_page, kReadExecute);
    EXPECT_NE(CallRaw(get.value(), spare, g_page) & 0xffff, 0u);
    EXPECT_TRUE(IsFilled());
    memcpy(reinterpret_cast<void*>(spare + 0x100), reinterpret_cast<void*>(spare), 24);
  }
}

TEST(MsrsThatNameProtectedPages) {
  const Protected page(g_page, kNoAccess);
  for (const uint32_t msr : {vmm::kHvMsrSimp, vmm::kHvMsrSiefp, vmm::kHvMsrVpAssistPage, vmm::kHvMsrReferenceTsc}) {
    const Context context("msr", msr);
    const uint64_t before = ReadMsr(msr);
    EXPECT_FAULT(kGeneralProtection, WriteMsr(msr, g_page | vmm::kHvOverlayEnable));
    EXPECT_EQ(ReadMsr(msr), before);
  }
  const uint64_t before = ReadMsr(vmm::kHvMsrHypercall);
  EXPECT_FAULT(kGeneralProtection, WriteMsr(vmm::kHvMsrHypercall, g_page | vmm::kHvOverlayEnable));
  EXPECT_EQ(ReadMsr(vmm::kHvMsrHypercall), before);
}

}  // namespace
}  // namespace guest
