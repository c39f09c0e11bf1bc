// The tables that the processor reads by itself (IDT, GDT, TSS) on pages that VTL0 may not touch: each read or write of them is an
// intercept at the right address, and the event that needed it is delivered once VTL1 lets it, once only.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/modes.h"
#include "tests/guests/runtime/per_cpu.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

extern "C" uint64_t page_directories[];

namespace guest {
namespace {

using vmm::HvInterceptAccess;

constexpr uint8_t kVector = 0x41;
constexpr uint64_t kGateBytes = 16;
constexpr uint16_t kCode64 = 0x08, kData = 0x10, kTask = 0x30;
constexpr uint32_t kIcrNmi = 4 << 8;
constexpr uint64_t kDescriptorAccessed = uint64_t{1} << 40;
constexpr uint64_t kAvailableTask = uint64_t{0x89} << 40;

struct [[gnu::packed]] TablePointer {
  uint16_t limit;
  uint64_t base;
};

// This processor's tables, copied to a page each, and loaded from there for a scope.
class MovedTables final {
 public:
  MovedTables() {
    EnableProtection();
    static const uint64_t pages = GpaOf(AllocatePages(3));
    idt_ = pages;
    gdt_ = pages + kPageBytes;
    task_ = pages + 2 * kPageBytes;
    const Cpu& cpu = ThisCpu();
    memcpy(reinterpret_cast<void*>(idt_), cpu.level->idt, sizeof(cpu.level->idt));
    memcpy(reinterpret_cast<void*>(gdt_), cpu.gdt, sizeof(cpu.gdt));
    memcpy(reinterpret_cast<void*>(task_), &cpu.task, sizeof(cpu.task));
    Store<uint64_t>(gdt_ + kTask, (sizeof(TaskState) - 1) | (task_ & 0xff'ffff) << 16 | kAvailableTask | (task_ >> 24 & 0xff) << 56);
    Store<uint64_t>(gdt_ + kTask + 8, task_ >> 32);
    const TablePointer gdt{sizeof(cpu.gdt) - 1, gdt_};
    const TablePointer idt{sizeof(cpu.level->idt) - 1, idt_};
    asm volatile("lgdt %0" : : "m"(gdt) : "memory");
    asm volatile("ltr %0" : : "r"(kTask) : "memory");
    asm volatile("lidt %0" : : "m"(idt) : "memory");
  }
  ~MovedTables() { SetUpInterrupts(ThisCpuNumber()); }
  MovedTables(const MovedTables&) = delete;
  MovedTables& operator=(const MovedTables&) = delete;

  [[nodiscard]] uint64_t idt() const { return idt_; }
  [[nodiscard]] uint64_t gdt() const { return gdt_; }
  [[nodiscard]] uint64_t task() const { return task_; }

 private:
  uint64_t idt_, gdt_, task_;
};

void ExpectOne(const Intercepts& seen, uint64_t gpa, HvInterceptAccess access) {
  ASSERT_EQ(seen.count, 1u);
  EXPECT_EQ(seen.Memory(0).gpa, gpa);
  EXPECT_EQ(seen.Memory(0).gva, gpa);
  EXPECT_TRUE((seen.Memory(0).access_info & vmm::kHvAccessGvaValid) != 0);
  EXPECT_EQ(seen.Memory(0).header.access, access);
}

constexpr auto LoadDs = [] { asm volatile("movw %w0, %%ds" : : "r"(kData) : "memory"); };
constexpr auto Undefined = [] { asm volatile("ud2"); };

// --- IDT ----------------------------------------------------------------------------------------------------------------

TEST(AnExceptionWhoseGateCannotBeRead) {
  const MovedTables tables;
  const Protected page(tables.idt(), kNoAccess);
  Fault fault;
  const Intercepts seen = Intercepted(Reply::kLift, [&] { fault = Catch(Undefined); });
  ExpectOne(seen, tables.idt() + kUndefinedOpcode * kGateBytes, HvInterceptAccess::kRead);
  EXPECT_EQ(fault.vector, kUndefinedOpcode);
}

TEST(APageFaultKeepsItsAddressAndErrorCode) {
  constexpr uint64_t kUnmapped = 0x6fe0'0000;
  const uint64_t before = page_directories[kUnmapped >> 21];
  page_directories[kUnmapped >> 21] = 0;
  WriteCr3(ReadCr3());
  {
    const MovedTables tables;
    const Protected page(tables.idt(), kNoAccess);
    Fault fault;
    const Intercepts seen = Intercepted(Reply::kLift, [&] { fault = Catch([] { Store<uint8_t>(kUnmapped + 0x123, 1); }); });
    ExpectOne(seen, tables.idt() + kPageFault * kGateBytes, HvInterceptAccess::kRead);
    EXPECT_EQ(fault.vector, kPageFault);
    EXPECT_EQ(fault.address, kUnmapped + 0x123);
    EXPECT_EQ(fault.error_code, 2u);
  }
  page_directories[kUnmapped >> 21] = before;
  WriteCr3(ReadCr3());
}

TEST(ASoftwareInterruptWhoseGateCannotBeRead) {
  const MovedTables tables;
  const Protected page(tables.idt(), kNoAccess);
  CountInterrupts(kVector, Eoi::kNone);
  const uint64_t before = InterruptCount(kVector);
  const Intercepts seen = Intercepted(Reply::kLift, [] { asm volatile("int $0x41" : : : "memory"); });
  ExpectOne(seen, tables.idt() + kVector * kGateBytes, HvInterceptAccess::kRead);
  EXPECT_EQ(InterruptCount(kVector) - before, 1u);
}

TEST(AnInterruptWhoseGateCannotBeRead) {
  const MovedTables tables;
  const Protected page(tables.idt(), kNoAccess);
  CountInterrupts(kVector, Eoi::kApic);
  const uint64_t before = InterruptCount(kVector);
  const Intercepts seen = Intercepted(Reply::kLift, [before] {
    SendIpi(ThisCpuNumber(), kVector);
    EXPECT_TRUE(WaitFor([before] { return InterruptCount(kVector) != before; }));
  });
  ExpectOne(seen, tables.idt() + kVector * kGateBytes, HvInterceptAccess::kRead);
  EXPECT_EQ(InterruptCount(kVector) - before, 1u);
  EXPECT_FALSE(IsRequested(kVector));
  EXPECT_FALSE(IsInService(kVector));
}

TEST(AnNmiWhoseGateCannotBeRead) {
  const MovedTables tables;
  const Protected page(tables.idt(), kNoAccess);
  CountInterrupts(kNmi, Eoi::kNone);
  const uint64_t before = InterruptCount(kNmi);
  const Intercepts seen = Intercepted(Reply::kLift, [before] {
    WriteIcr(ThisCpuNumber(), kIcrNmi);
    EXPECT_TRUE(WaitFor([before] { return InterruptCount(kNmi) != before; }));
  });
  ExpectOne(seen, tables.idt() + kNmi * kGateBytes, HvInterceptAccess::kRead);
  EXPECT_EQ(InterruptCount(kNmi) - before, 1u);
}

// VTL1 lets VTL0 try twice in vain: each time it is told again, and the interrupt still comes once.
TEST(AnInterruptThatIsRefusedThreeTimes) {
  const MovedTables tables;
  const Protected page(tables.idt(), kNoAccess);
  CountInterrupts(kVector, Eoi::kApic);
  static uint64_t idt;
  static uint32_t told;
  idt = tables.idt();
  told = 0;
  const uint64_t before = InterruptCount(kVector);
  SetReply(Reply::kCall, [](const vmm::HvMessage&, VtlFrame&) {
    if (++told == 3 && ModifyProtection(idt, vmm::kHvProtectAll) != Success(1)) Fatal("cannot free");
  });
  SendIpi(ThisCpuNumber(), kVector);
  EXPECT_TRUE(WaitFor([before] { return InterruptCount(kVector) != before; }));
  EXPECT_EQ(SeenOf(ThisCpuNumber()).count, 3u);
  SetReply(Reply::kFatal);
  EXPECT_EQ(InterruptCount(kVector) - before, 1u);
}

// --- GDT ----------------------------------------------------------------------------------------------------------------

TEST(ASegmentWhoseDescriptorCannotBeRead) {
  const MovedTables tables;
  const Protected page(tables.gdt(), kNoAccess);
  ExpectOne(Intercepted(Reply::kLift, LoadDs), tables.gdt() + kData, HvInterceptAccess::kRead);
}

TEST(ASegmentWhoseDescriptorCannotBeMarked) {
  const MovedTables tables;
  Store<uint64_t>(tables.gdt() + kData, Load<uint64_t>(tables.gdt() + kData) & ~kDescriptorAccessed);
  {
    const Protected page(tables.gdt(), kReadExecute);
    const Intercepts seen = Intercepted(Reply::kLift, LoadDs);
    ASSERT_EQ(seen.count, 1u);
    EXPECT_EQ(seen.Memory(0).gpa & ~uint64_t{7}, tables.gdt() + kData);  // which of its bytes is the processor's choice
    EXPECT_EQ(seen.Memory(0).header.access, HvInterceptAccess::kWrite);
  }
  EXPECT_TRUE((Load<uint64_t>(tables.gdt() + kData) & kDescriptorAccessed) != 0);
}

TEST(ATaskWhoseDescriptorCannotBeMarked) {
  const MovedTables tables;
  Store<uint64_t>(tables.gdt() + kTask, (Load<uint64_t>(tables.gdt() + kTask) & ~(uint64_t{0xff} << 40)) | kAvailableTask);
  {
    const Protected page(tables.gdt(), kReadExecute);
    const Intercepts seen = Intercepted(Reply::kLift, [] { asm volatile("ltr %0" : : "r"(kTask) : "memory"); });
    ASSERT_EQ(seen.count, 1u);
    EXPECT_EQ(seen.Memory(0).gpa & ~uint64_t{7}, tables.gdt() + kTask);
    EXPECT_EQ(seen.Memory(0).header.access, HvInterceptAccess::kWrite);
  }
  EXPECT_EQ(Load<uint64_t>(tables.gdt() + kTask) >> 40 & 0xff, 0x8bu);
}

TEST(AnExceptionWhoseCodeSegmentCannotBeRead) {
  const MovedTables tables;
  const Protected page(tables.gdt(), kNoAccess);
  Fault fault;
  const Intercepts seen = Intercepted(Reply::kLift, [&] { fault = Catch(Undefined); });
  ExpectOne(seen, tables.gdt() + kCode64, HvInterceptAccess::kRead);
  EXPECT_EQ(fault.vector, kUndefinedOpcode);
}

// --- TSS, and the stack that it names -----------------------------------------------------------------------------------

TEST(AStackThatCannotBeLookedUp) {
  const MovedTables tables;
  const Protected page(tables.task(), kNoAccess);
  Fault fault;
  const Intercepts seen = Intercepted(Reply::kLift, [&] { fault = InUserMode(Undefined); });
  ExpectOne(seen, tables.task() + offsetof(TaskState, rsp), HvInterceptAccess::kRead);
  EXPECT_EQ(fault.vector, kUndefinedOpcode);
}

TEST(ATableAndTheStackAtOnce) {
  const MovedTables tables;
  const uint64_t stack = GpaOf(AllocatePages(1));
  Store<uint64_t>(tables.task() + offsetof(TaskState, rsp), stack + kPageBytes);
  const Protected idt(tables.idt(), kNoAccess), task(tables.task(), kNoAccess), frame(stack, kReadExecute);
  Fault fault;
  const Intercepts seen = Intercepted(Reply::kLift, [&] { fault = InUserMode(Undefined); });
  ASSERT_EQ(seen.count, 3u);
  EXPECT_EQ(seen.Memory(0).gpa, tables.idt() + kUndefinedOpcode * kGateBytes);
  EXPECT_EQ(seen.Memory(1).gpa, tables.task() + offsetof(TaskState, rsp));
  EXPECT_EQ(seen.Memory(2).gpa & ~uint64_t{kPageBytes - 1}, stack);
  EXPECT_EQ(seen.Memory(2).header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(fault.vector, kUndefinedOpcode);
}

}  // namespace
}  // namespace guest
