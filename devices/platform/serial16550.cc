#include "devices/platform/serial16550.h"

#include <algorithm>

namespace vmm {

using namespace uart;  // NOLINT: the data sheet's names

namespace {
constexpr uint8_t kCharacterErrors = kLsrPe | kLsrFe | kLsrBi;
constexpr uint8_t kLineErrors = kLsrOe | kCharacterErrors;
// The host's end of the cable is always there and always listens.
constexpr uint8_t kHostPresent = kMsrCts | kMsrDsr | kMsrDcd;
}  // namespace

Serial16550::Serial16550(InterruptLine& interrupt, LineStatusListener* listener)
    : interrupt_(interrupt), listener_(listener), modem_lines_(kHostPresent) {
  Update();
}

size_t Serial16550::TriggerLevel() const noexcept {
  if (!fifo_enabled()) return 1;
  static constexpr size_t kLevels[] = {1, 4, 8, 14};
  return kLevels[(fcr_ & kFcrTrigger) >> 6];
}

uint8_t Serial16550::Lsr() const noexcept {
  uint8_t lsr = line_errors_;
  if (fifo_count_ != 0) lsr |= kLsrDr;
  if (TransmitReady()) lsr |= kLsrThre;
  // Loopback sends nothing out; otherwise the shifter holds something while the host owes us room.
  if (TransmitReady()) lsr |= kLsrTemt;
  if (fifo_enabled()) {
    bool error = (line_errors_ & kCharacterErrors) != 0;
    for (size_t i = 0; i < fifo_count_; ++i) error |= fifo_[(fifo_head_ + i) % kFifoBytes].errors != 0;
    if (error) lsr |= kLsrFifoError;
  }
  return lsr;
}

uint8_t Serial16550::Iir() const noexcept {
  const uint8_t fifos = fifo_enabled() ? kIirFifos : 0;
  if ((ier_ & kElsi) != 0 && (line_errors_ & kLineErrors) != 0) return kIirLine | fifos;
  if ((ier_ & kErbfi) != 0 && fifo_count_ != 0) {
    return static_cast<uint8_t>((fifo_count_ >= TriggerLevel() ? kIirData : kIirTimeout) | fifos);
  }
  if ((ier_ & kEtbei) != 0 && thre_pending_) return kIirThre | fifos;
  if ((ier_ & kEdssi) != 0 && modem_deltas_ != 0) return kIirModem | fifos;
  return kIirNone | fifos;
}

uint8_t Serial16550::ModemLines() const noexcept {
  if (!loopback()) return kHostPresent;
  uint8_t lines = 0;
  if ((mcr_ & kMcrRts) != 0) lines |= kMsrCts;
  if ((mcr_ & kMcrDtr) != 0) lines |= kMsrDsr;
  if ((mcr_ & kMcrOut1) != 0) lines |= kMsrRi;
  if ((mcr_ & kMcrOut2) != 0) lines |= kMsrDcd;
  return lines;
}

void Serial16550::UpdateModemStatus() noexcept {
  const uint8_t lines = ModemLines();
  const uint8_t changed = lines ^ modem_lines_;
  if ((changed & kMsrCts) != 0) modem_deltas_ |= kMsrDcts;
  if ((changed & kMsrDsr) != 0) modem_deltas_ |= kMsrDdsr;
  // Trailing edge: only the end of a ring counts.
  if ((changed & modem_lines_ & kMsrRi) != 0) modem_deltas_ |= kMsrTeri;
  if ((changed & kMsrDcd) != 0) modem_deltas_ |= kMsrDdcd;
  modem_lines_ = lines;
}

void Serial16550::Update() noexcept {
  if (listener_ != nullptr) {
    // In loopback a write to THR comes back as data: it does change LSR.
    const size_t credit = TransmitReady() && !loopback() ? transmit_room() - kFifoBytes : 0;
    listener_->LineStatus(Lsr(), (line_errors_ & kLineErrors) == 0, static_cast<uint16_t>(credit));
  }
  // In loopback OUT2's pin is off, whatever its bit says.
  const bool gate = (mcr_ & kMcrOut2) != 0 && !loopback();
  const bool level = gate && (Iir() & kIirNone) == 0;
  if (level && !intr_) {
    intr_ = true;
    interrupt_.Pulse();
  }
  intr_ = level;
}

void Serial16550::RevealErrors() noexcept {
  if (fifo_count_ == 0) return;
  line_errors_ |= fifo_[fifo_head_].errors;
  fifo_[fifo_head_].errors = 0;
}

void Serial16550::Receive(Received received) noexcept {
  const size_t capacity = fifo_enabled() ? kFifoBytes : 1;
  if (fifo_count_ >= capacity) {
    line_errors_ |= kLsrOe;
    // The FIFO keeps what it has; the single register of a 16450 is overwritten.
    if (fifo_enabled()) return;
    fifo_count_ = 0;
  }
  fifo_[(fifo_head_ + fifo_count_) % kFifoBytes] = received;
  if (++fifo_count_ == 1) RevealErrors();
}

uint8_t Serial16550::ReadReceiveBuffer() noexcept {
  // An empty receiver still holds the last character.
  const uint8_t byte = fifo_[fifo_head_].byte;
  if (fifo_count_ == 0) return byte;
  if (--fifo_count_ != 0) {
    fifo_head_ = (fifo_head_ + 1) % kFifoBytes;
    RevealErrors();
  }
  return byte;
}

void Serial16550::ClearReceiver() noexcept {
  fifo_head_ = 0;
  fifo_count_ = 0;
  fifo_[0] = {};
  line_errors_ &= static_cast<uint8_t>(~kCharacterErrors);
}

void Serial16550::WriteFifoControl(uint8_t value) noexcept {
  // Switching between the modes empties both FIFOs. The transmit side has nothing to clear: what was written is sent.
  const bool switched = ((value ^ fcr_) & kFcrEnable) != 0;
  if (switched || ((value & kFcrEnable) != 0 && (value & kFcrClearRx) != 0)) ClearReceiver();
  // Other bits are taken only together with the enable bit.
  fcr_ = (value & kFcrEnable) != 0 ? value & (kFcrEnable | kFcrTrigger) : 0;
}

void Serial16550::Transmit(uint8_t byte) noexcept {
  thre_pending_ = false;
  if (loopback()) {
    Receive({byte, 0});
  } else if (output_count_ < kTransmitBytes) {
    output_[(output_head_ + output_count_) % kTransmitBytes] = byte;
    ++output_count_;
  }
  // else: written against THRE 0 more often than a FIFO is deep. Lost, as on the real line.
  thre_pending_ = TransmitReady();
}

uint8_t Serial16550::ReadRegister(uint64_t offset) noexcept {
  switch (offset) {
    case kRbr:
      return dlab() ? dll_ : ReadReceiveBuffer();
    case kIer:
      return dlab() ? dlm_ : ier_;
    case kIir: {
      const uint8_t iir = Iir();
      // Reading it acknowledges THRE, and only if THRE is what it says.
      if ((iir & 0x0f) == kIirThre) thre_pending_ = false;
      return iir;
    }
    case kLcr:
      return lcr_;
    case kMcr:
      return mcr_;
    case kLsr: {
      const uint8_t lsr = Lsr();
      line_errors_ = 0;
      return lsr;
    }
    case kMsr: {
      const uint8_t msr = modem_lines_ | modem_deltas_;
      modem_deltas_ = 0;
      return msr;
    }
    case kScr:
      return scr_;
    default:
      return 0xff;
  }
}

void Serial16550::WriteRegister(uint64_t offset, uint8_t value) noexcept {
  switch (offset) {
    case kThr:
      if (dlab()) {
        dll_ = value;
      } else {
        Transmit(value);
      }
      break;
    case kIer:
      if (dlab()) {
        dlm_ = value;
        break;
      }
      value &= kErbfi | kEtbei | kElsi | kEdssi;
      // Enabling it finds the transmitter empty: that is an interrupt. Drivers start sending by this.
      if ((value & ~ier_ & kEtbei) != 0) thre_pending_ = TransmitReady();
      ier_ = value;
      break;
    case kFcr:
      WriteFifoControl(value);
      break;
    case kLcr:
      // In loopback the receiver sees the break that the transmitter sends; the host's terminal has no such thing.
      if (loopback() && (value & ~lcr_ & kLcrBreak) != 0) Receive({0, kLsrBi | kLsrFe});
      lcr_ = value;
      break;
    case kMcr:
      mcr_ = value & (kMcrDtr | kMcrRts | kMcrOut1 | kMcrOut2 | kMcrLoop);
      UpdateModemStatus();
      break;
    case kScr:
      scr_ = value;
      break;
    default:  // LSR and MSR are for factory tests
      break;
  }
}

void Serial16550::Read(uint64_t offset, std::span<std::byte> data) noexcept {
  if (data.size() != 1) {
    std::fill(data.begin(), data.end(), std::byte{0xff});
    return;
  }
  data[0] = std::byte{ReadRegister(offset)};
  Update();
}

void Serial16550::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  if (data.size() != 1) return;
  WriteRegister(offset, std::to_integer<uint8_t>(data[0]));
  Update();
}

std::span<const uint8_t> Serial16550::Output() const noexcept {
  return std::span(output_).subspan(output_head_, std::min(output_count_, kTransmitBytes - output_head_));
}

void Serial16550::ConsumeOutput(size_t bytes) noexcept {
  bytes = std::min(bytes, output_count_);
  const bool was_ready = TransmitReady();
  output_head_ = (output_head_ + bytes) % kTransmitBytes;
  output_count_ -= bytes;
  if (!was_ready && TransmitReady()) thre_pending_ = true;
  Update();
}

size_t Serial16550::InputRoom() const noexcept {
  if (loopback() || (mcr_ & kMcrRts) == 0) return 0;
  return (fifo_enabled() ? kFifoBytes : 1) - std::min(fifo_count_, fifo_enabled() ? kFifoBytes : size_t{1});
}

void Serial16550::GiveInput(std::span<const uint8_t> bytes) noexcept {
  for (const uint8_t byte : bytes.first(std::min(bytes.size(), InputRoom()))) Receive({byte, 0});
  Update();
}

}  // namespace vmm
