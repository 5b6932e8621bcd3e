// Tiles of 16 rows of 16 cells of two bf16 numbers, multiplied whole, where there are some (AMX).
//
// A thread holds a `Tiles` while it multiplies. With EMULATED_TILES plain C++ does the same, so that
// any machine can test what is built on them. Cells are those of products.h.

#pragma once

#include "vectors.h"

#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define TILES
#elif defined(EMULATED_TILES)
#define TILES
#endif

namespace {

#ifndef TILES
struct Tiles {
  Tiles() {}
  static constexpr bool usable() { return false; }
};
#else

// Eight tiles, by number; apart: bytes from one row in memory to the next.
struct Tiles {
  Tiles() {
    if (usable()) configure();
  }
  ~Tiles() {
    if (usable()) release();
  }
  Tiles(const Tiles&) = delete;

  static bool usable() {
    static bool answer = ask();
    return answer;
  }

#ifdef EMULATED_TILES
  static uint32_t (*numbers())[P][P] {
    static thread_local uint32_t all[8][P][P];
    return all;
  }
  template <int T>
  static void zero() { std::memset(numbers()[T], 0, sizeof(uint32_t) * P * P); }
  template <int T>
  static void load(const void* from, int64_t apart) {
    for (int r = 0; r < P; ++r)
      std::memcpy(numbers()[T][r], static_cast<const char*>(from) + r * apart, 4 * P);
  }
  template <int T>
  static void store(void* to, int64_t apart) {
    for (int r = 0; r < P; ++r)
      std::memcpy(static_cast<char*>(to) + r * apart, numbers()[T][r], 4 * P);
  }
  template <int SUM, int LEFT, int RIGHT>
  static void add() {
    for (int r = 0; r < P; ++r)
      for (int k = 0; k < P; ++k) {
        vu left = (vu){} + numbers()[LEFT][r][k], right = *(const vu*)numbers()[RIGHT][k];
        vf* sum = (vf*)numbers()[SUM][r];
        *sum += (vf)(left << 16) * (vf)(right << 16);
        *sum += (vf)(left >> 16 << 16) * (vf)(right >> 16 << 16);
      }
  }

 private:
  static bool ask() { return true; }
  static void configure() {}
  static void release() {}
#else
  template <int T>
  static void zero() { asm volatile("tilezero %%tmm%c0" ::"i"(T)); }
  template <int T>
  static void load(const void* from, int64_t apart) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(apart), "i"(T) : "memory");
  }
  template <int T>
  static void store(void* to, int64_t apart) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(apart), "i"(T) : "memory");
  }
  template <int SUM, int LEFT, int RIGHT>
  static void add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(LEFT), "i"(RIGHT));
  }

 private:
  // Linux gives a process the room that tiles take in its threads' states only when asked.
  static bool ask() {
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
  }
  static void configure() {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    static_assert(sizeof shape == 64);
    for (int t = 0; t < 8; ++t) shape.row_bytes[t] = 64, shape.rows[t] = P;
    asm volatile("ldtilecfg %0" ::"m"(shape));
  }
  static void release() { asm volatile("tilerelease"); }
#endif
};
#endif

}  // namespace
