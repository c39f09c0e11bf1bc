// A 16550A UART as PCs have it, with an infinitely fast line.
//
// Shapes   eight byte registers at offsets 0..7; 16-byte receive FIFO; transmit buffer of kTransmitBytes for the host.
// Threads  confined: the device process's loop.
// Trust    offsets and values are the guest's. Everything is bounded; nothing is lost that LSR did not announce.
// Errors   none. Accesses wider than a byte read ones and write nothing, as on the ISA card.
// Source   National Semiconductor PC16550D data sheet, "Registers", "FIFO Interrupt Mode Operation", "Loopback".
//
// What "infinitely fast" means: a byte written to THR is gone at once, so THRE and TEMT stay set and the THRE interrupt is
// raised again at once, as long as the transmit buffer keeps room for a whole FIFO (16). Without that room, which is when
// the host does not take the output, THRE is 0 until it does: the guest's own flow control. A received byte below the
// trigger level counts as timed out at once (IIR 0x0c): there is no clock in here.
//
// The host gives input only while InputRoom() says so: no overrun but in loopback. It respects RTS, as a terminal with
// hardware flow control does; so input that comes before the guest's driver opens the port waits for it.
//
// Interrupts: INTR is the level of the data sheet, gated by OUT2 as on a PC. The controller sees edges, so one pulse is sent
// when the gated level rises. While it stays up no other is needed: a driver handles sources until IIR reads "none".
#ifndef VMM_DEVICES_PLATFORM_SERIAL16550_H_
#define VMM_DEVICES_PLATFORM_SERIAL16550_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/interrupt_line.h"
#include "devices/io_device.h"

namespace vmm {

// Registers, spelled as the data sheet does.
namespace uart {
inline constexpr uint64_t kRbr = 0, kThr = 0, kDll = 0;
inline constexpr uint64_t kIer = 1, kDlm = 1;
inline constexpr uint64_t kIir = 2, kFcr = 2;
inline constexpr uint64_t kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6, kScr = 7;

inline constexpr uint8_t kErbfi = 0x01, kEtbei = 0x02, kElsi = 0x04, kEdssi = 0x08;                        // IER
inline constexpr uint8_t kIirNone = 0x01, kIirModem = 0x00, kIirThre = 0x02, kIirData = 0x04, kIirLine = 0x06,
                         kIirTimeout = 0x0c, kIirFifos = 0xc0;                                             // IIR
inline constexpr uint8_t kFcrEnable = 0x01, kFcrClearRx = 0x02, kFcrClearTx = 0x04, kFcrTrigger = 0xc0;    // FCR
inline constexpr uint8_t kLcrBreak = 0x40, kLcrDlab = 0x80;                                                // LCR
inline constexpr uint8_t kMcrDtr = 0x01, kMcrRts = 0x02, kMcrOut1 = 0x04, kMcrOut2 = 0x08, kMcrLoop = 0x10;  // MCR
inline constexpr uint8_t kLsrDr = 0x01, kLsrOe = 0x02, kLsrPe = 0x04, kLsrFe = 0x08, kLsrBi = 0x10, kLsrThre = 0x20,
                         kLsrTemt = 0x40, kLsrFifoError = 0x80;                                            // LSR
inline constexpr uint8_t kMsrDcts = 0x01, kMsrDdsr = 0x02, kMsrTeri = 0x04, kMsrDdcd = 0x08, kMsrCts = 0x10,
                         kMsrDsr = 0x20, kMsrRi = 0x40, kMsrDcd = 0x80;                                    // MSR
}  // namespace uart

// Told of a new LSR before the interrupt that belongs to it.
class LineStatusListener {
 public:
  virtual ~LineStatusListener() = default;
  // `pure`: reading it would change nothing. It stays as it is for the next `credit` writes to offset 0.
  virtual void LineStatus(uint8_t lsr, bool pure, uint16_t credit) noexcept = 0;
};

class Serial16550 final : public IoDevice {
 public:
  static constexpr size_t kFifoBytes = 16;
  static constexpr size_t kTransmitBytes = 4096;

  // Both outlive the device; `listener` may be null.
  Serial16550(InterruptLine& interrupt, LineStatusListener* listener);
  Serial16550(const Serial16550&) = delete;
  Serial16550& operator=(const Serial16550&) = delete;

  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

  // The host's side. Output: what is next in the buffer (contiguous, so perhaps not all), and that so much is gone.
  [[nodiscard]] std::span<const uint8_t> Output() const noexcept;
  void ConsumeOutput(size_t bytes) noexcept;
  // Input: how many bytes may be given now, and giving them (at most that many).
  [[nodiscard]] size_t InputRoom() const noexcept;
  void GiveInput(std::span<const uint8_t> bytes) noexcept;

 private:
  struct Received {
    uint8_t byte;
    uint8_t errors;  // PE, FE, BI of this character
  };
  [[nodiscard]] bool fifo_enabled() const noexcept { return (fcr_ & uart::kFcrEnable) != 0; }
  [[nodiscard]] bool loopback() const noexcept { return (mcr_ & uart::kMcrLoop) != 0; }
  [[nodiscard]] bool dlab() const noexcept { return (lcr_ & uart::kLcrDlab) != 0; }
  [[nodiscard]] size_t transmit_room() const noexcept { return kTransmitBytes - output_count_; }
  [[nodiscard]] bool TransmitReady() const noexcept { return transmit_room() >= kFifoBytes; }
  [[nodiscard]] size_t TriggerLevel() const noexcept;
  [[nodiscard]] uint8_t Lsr() const noexcept;
  [[nodiscard]] uint8_t Iir() const noexcept;
  [[nodiscard]] uint8_t ModemLines() const noexcept;

  uint8_t ReadRegister(uint64_t offset) noexcept;
  void WriteRegister(uint64_t offset, uint8_t value) noexcept;
  void Transmit(uint8_t byte) noexcept;
  void Receive(Received received) noexcept;
  void RevealErrors() noexcept;
  uint8_t ReadReceiveBuffer() noexcept;
  void WriteFifoControl(uint8_t value) noexcept;
  void ClearReceiver() noexcept;
  void UpdateModemStatus() noexcept;
  // After each change: publishes LSR, then pulses if the gated INTR rose.
  void Update() noexcept;

  InterruptLine& interrupt_;
  LineStatusListener* const listener_;

  uint8_t ier_ = 0;
  uint8_t fcr_ = 0;
  uint8_t lcr_ = 0;
  uint8_t mcr_ = 0;
  uint8_t scr_ = 0;
  uint8_t dll_ = 12;  // 9600 baud: what a PC's firmware leaves
  uint8_t dlm_ = 0;
  uint8_t line_errors_ = 0;   // OE and the errors of the character on top; a read of LSR clears them
  uint8_t modem_lines_ = 0;   // MSR bits 4..7
  uint8_t modem_deltas_ = 0;  // MSR bits 0..3
  bool thre_pending_ = false;
  bool intr_ = false;

  std::array<Received, kFifoBytes> fifo_{};
  size_t fifo_head_ = 0;
  size_t fifo_count_ = 0;
  std::array<uint8_t, kTransmitBytes> output_;
  size_t output_head_ = 0;
  size_t output_count_ = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_SERIAL16550_H_
