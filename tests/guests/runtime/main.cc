#include "tests/guests/runtime/main.h"

#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"

// entry.S comes here on processor 0, in long mode, on its stack, with interrupts off.
extern "C" [[noreturn]] void guest_boot_main() {
  using namespace guest;
  // Both PICs masked, as a kernel does that uses the I/O APIC; where there is none, the writes reach nothing.
  Out8(0x21, 0xff);
  Out8(0xa1, 0xff);
  SetUpInterrupts(0);
  CopyBootInfo();
  SetUpSerialPort();
  EnableApic();
  const auto cpus = static_cast<uint32_t>(ReadFwCfg(kFwCfgCpus, 2));
  Note("processors", cpus);
  if (cpus == 0 || !StartOtherCpus(StartsOtherCpus() ? cpus : 1)) Fatal("not all processors started; fw_cfg says", cpus);
  EnableInterrupts();
  RunTests();
  Fatal("the debug exit does not end the machine");
}
