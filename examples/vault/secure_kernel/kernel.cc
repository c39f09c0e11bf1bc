// A secure kernel that does one thing: it holds an Ed25519 key, and signs what VTL0 asks it to, if its policy allows.
//
// Trust    requests are VTL0's: an address is looked at before it is used (a request within our own memory would have us read or
//          write it for VTL0), and a request is copied once, and only the copy is used.
// Source   the signatures are libsodium's. Its code uses SSE registers, which VTL0 has its own in: they are kept around it.
#include <cstddef>
#include <cstdint>

#include "examples/vault/secure_kernel/hypervisor.h"
#include "examples/vault/vault_abi.h"

extern "C" {
int crypto_sign_ed25519_seed_keypair(unsigned char* public_key, unsigned char* secret_key, const unsigned char* seed);
int crypto_sign_ed25519_detached(unsigned char* signature, unsigned long long* signature_bytes, const unsigned char* message,
                                 unsigned long long message_bytes, const unsigned char* secret_key);
void* memcpy(void* to, const void* from, size_t bytes);
void* memset(void* to, int value, size_t bytes);
int VaultMaySign(const unsigned char* message, uint32_t bytes);
void VaultStart();
void VaultServe();
extern uint64_t vault_frame[], vault_protect;
}

namespace vault {
namespace {

constexpr uint64_t kPage = 4096;
constexpr unsigned kRax = 0, kRcx = 1, kRsi = 5, kRdi = 6;  // vault_frame

unsigned char g_secret_key[64];  // the seed, and the public key again
unsigned char g_public_key[VAULT_KEY_BYTES];
uint64_t g_reads_denied, g_writes_denied;
bool g_first = true;

// While it lives, SSE and x87 are ours.
class BorrowedVectors final {
 public:
  BorrowedVectors() { asm volatile("fxsave64 %0" : "=m"(state_) : : "memory"); }
  ~BorrowedVectors() { asm volatile("fxrstor64 %0" : : "m"(state_) : "memory"); }
  BorrowedVectors(const BorrowedVectors&) = delete;
  BorrowedVectors& operator=(const BorrowedVectors&) = delete;

 private:
  struct alignas(16) State {
    uint8_t bytes[512];
  } state_;
};

void MakeKey() {
  const BorrowedVectors borrowed;
  unsigned char seed[32];
  for (unsigned i = 0; i < sizeof(seed); i += 8) {
    uint64_t random = 0;
    uint8_t ok = 0;
    for (int tries = 0; tries < 100 && ok == 0; ++tries) asm volatile("rdrand %0; setc %1" : "=r"(random), "=r"(ok) : : "cc");
    if (ok == 0) Panic("no random numbers");
    memcpy(seed + i, &random, sizeof(random));
  }
  crypto_sign_ed25519_seed_keypair(g_public_key, g_secret_key, seed);
  memset(seed, 0, sizeof(seed));
  asm volatile("" : : "r"(seed) : "memory");
}

bool IsRequest(uint64_t at) {
  constexpr uint64_t kDevices = 0xc000'0000;  // memory ends below
  return at % kPage == 0 && at < kDevices && (at + kPage <= VAULT_BASE || at >= VAULT_BASE + VAULT_BYTES);
}

uint64_t Sign(volatile vault_request& guest) {
  static vault_request request;
  memcpy(&request, const_cast<vault_request*>(&guest), sizeof(request));
  if (request.message_bytes > VAULT_MESSAGE_BYTES) return VAULT_BAD_REQUEST;
  if (VaultMaySign(request.message, request.message_bytes) == 0) return VAULT_REFUSED;
  const BorrowedVectors borrowed;
  crypto_sign_ed25519_detached(request.signature, nullptr, request.message, request.message_bytes, g_secret_key);
  memcpy(const_cast<vault_request&>(guest).signature, request.signature, sizeof(request.signature));
  return VAULT_OK;
}

uint64_t Serve(uint64_t service, uint64_t at) {
  if (!IsRequest(at)) return VAULT_BAD_REQUEST;
  auto& guest = *reinterpret_cast<volatile vault_request*>(at);
  switch (service) {
    case VAULT_SIGN: return Sign(guest);
    case VAULT_PUBLIC_KEY: memcpy(const_cast<vault_request&>(guest).public_key, g_public_key, sizeof(g_public_key)); return VAULT_OK;
    case VAULT_COUNTS:
      guest.reads_denied = g_reads_denied;
      guest.writes_denied = g_writes_denied;
      return VAULT_OK;
    default: return VAULT_BAD_REQUEST;
  }
}

// The first of each kind and every 256th has a line; all are counted.
void Deny(const vmm::HvMemoryIntercept& m) {
  const bool write = m.header.access == vmm::HvInterceptAccess::kWrite;
  uint64_t& count = write ? g_writes_denied : g_reads_denied;
  if (count++ % 256 == 0) {
    Log(write ? "secure kernel: VTL0 tried to write" : "secure kernel: VTL0 tried to read", m.gpa);
    Log("secure kernel:   at instruction", m.header.rip);
  }
  FaultInVtl0(m.gva, write);
}

}  // namespace
}  // namespace vault

// Function of its own, at an address that the header tells: what an attacker would change first.
[[gnu::noinline, gnu::used]] int VaultMaySign(const unsigned char* message, uint32_t bytes) {
  constexpr char kForbidden[] = "forbidden";
  if (bytes < sizeof(kForbidden) - 1) return 1;
  for (unsigned i = 0; i < sizeof(kForbidden) - 1; ++i) {
    if (message[i] != static_cast<unsigned char>(kForbidden[i])) return 1;
  }
  return 0;
}

void VaultStart() {
  using namespace vault;
  StartHypervisor();
  MakeKey();
  if (vault_protect != 0) {
    HidePages(VAULT_BASE, VAULT_BYTES);
    Log("secure kernel: the key is made; nobody else sees these pages\n");
  } else {
    Log("secure kernel: the key is made; pages are NOT protected\n");
  }
}

void VaultServe() {
  using namespace vault;
  if (g_first || WhyEntered() == Entry::kCall) {
    if (!g_first) vault_frame[kRax] = Serve(vault_frame[kRdi], vault_frame[kRsi]);
    g_first = false;
  } else {
    vmm::HvMemoryIntercept message;
    while (TakeIntercept(message)) Deny(message);
  }
  SetReturnRegisters(vault_frame[kRax], vault_frame[kRcx]);
}
