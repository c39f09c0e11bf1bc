#include "tests/guests/runtime/modes.h"

#include "tests/guests/runtime/per_cpu.h"

extern "C" {
struct GuestCall32 {  // entry.S knows the order
  guest::Registers32 registers;
  uint32_t target;
};
void guest_enter_user(void (*function)(void*), void* argument, uint64_t stack, uint64_t flags);
void guest_call32(GuestCall32* call);
}

namespace guest {
namespace {

constexpr uint64_t kFlagsInterruptsOn = 0x202;

}  // namespace

Fault CallInUserMode(void (*function)(void*), void* argument, uint64_t flags) {
  Cpu& cpu = ThisCpu();
  const auto stack = reinterpret_cast<uint64_t>(cpu.user_stack + sizeof(cpu.user_stack));
  return Catch([&] { guest_enter_user(function, argument, stack, flags | kFlagsInterruptsOn); });
}

Fault CallIn32BitMode(uint64_t target, Registers32& registers) {
  GuestCall32 call{registers, static_cast<uint32_t>(target)};
  const Fault fault = Catch([&] { guest_call32(&call); });
  if (!fault.raised()) registers = call.registers;
  return fault;
}

}  // namespace guest
