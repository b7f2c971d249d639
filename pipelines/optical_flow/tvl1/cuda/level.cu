// One pyramid level of TV-L1 for many pairs of frames. What it computes is defined in reference.py.
//
// A pair is held on the chip for the whole level, by neighbouring blocks of threads that each have some of its rows.
// A warp of threads holds a strip: ROWS rows of 31 columns. Each lane has one column, lane 0 the column left of the
// strip, of which it computes once more what the strip needs. The flow u and the dual variable p are in registers, what
// a warping gives in shared memory. Blocks tell each other their outermost rows and their sums through global memory,
// in packets that are written and read whole and carry the number of the message: no fence is needed, and nothing but
// these packets orders the blocks. All blocks have to run at once, so the launch has to be cooperative.
//
// "Warping" is one of the estimator's warpings of the second frame, "warp" the 32 threads.
//
// Compiled by NVRTC with ROWS and MOST_STRIPS (warps of a block) and, before this file, the macros SORT_3, SORT_5,
// MEDIAN_OF_COLUMNS_3, MEDIAN_OF_COLUMNS_5 and MEDIAN_AT from kernels/networks.py. With EMULATED it is compiled for the
// CPU, by tests.

#ifdef EMULATED
#include "emulator.h"
#else
#define DEVICE __device__ __forceinline__
extern __shared__ __align__(16) unsigned char shared_memory[];

struct __align__(16) Packet {
  unsigned value1, tag1, value2, tag2;
};

// The two halves of a packet are two accesses of 8 bytes, each of which is whole.
DEVICE void store_packet(Packet* at, const Packet& packet) {
  unsigned long long low = (unsigned long long)packet.tag1 << 32 | packet.value1;
  unsigned long long high = (unsigned long long)packet.tag2 << 32 | packet.value2;
  asm volatile("st.relaxed.gpu.global.v2.u64 [%0], {%1, %2};" ::"l"(at), "l"(low), "l"(high) : "memory");
}

DEVICE Packet load_packet(const Packet* at) {
  unsigned long long low, high;
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(low), "=l"(high) : "l"(at) : "memory");
  return {(unsigned)low, (unsigned)(low >> 32), (unsigned)high, (unsigned)(high >> 32)};
}

DEVICE int load_flag(const int* at) {
  int value;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}

DEVICE void store_flag(int* at) {
  asm volatile("st.relaxed.gpu.global.s32 [%0], %1;" ::"l"(at), "r"(1) : "memory");
}

DEVICE long long nanoseconds() {
  long long now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// Makes the compiler forget what it knows of `x`, so that it does not compute anything from it before a loop.
DEVICE void forget(int& x) { asm volatile("" : "+r"(x)); }

DEVICE float fast_sqrt(float x) {
  float root;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
  return root;
}

DEVICE float fast_reciprocal(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
#endif

#define ALL_LANES 0xffffffffu
#define OWN 31     // columns of a strip
#define AROUND 2   // pixels around a pixel that the 5x5 median looks at
#define LANES 32

// As `LevelArguments` in solver.py.
struct Arguments {
  const float4* images;  // [pairs][height][width]: frame 1, its gradient along x and along y, frame 0
  float* flow;           // [pairs][2][height][width], read and written
  int* iterations;       // [pairs][warpings], written; may be null
  Packet* rows;          // [slots][2][blocks][2][AROUND][width], zeros
  Packet* sums;          // [slots][2][blocks], zeros
  Packet* orders;        // [slots], zeros
  unsigned* queue;       // the next pair; zero
  int* stuck;            // becomes 1 where a block waited in vain; zero
  double threshold;      // a change of u, summed over the pixels, that ends a warping
  long long patience;    // nanoseconds that a block waits for another
  float limit, theta, dual_step;
  int pairs, height, width;
  int blocks, across, down;  // blocks of a pair; strips of a block, across and down
  int warpings, inner, outer, median, like_cuda;
  // In a block's shared memory, bytes from its beginning:
  int data_at;             // float4 [strips][ROWS][LANES]
  int first_at, last_at;   // float2, u of each strip's first and last column [strips][ROWS]
  int top_at, bottom_at;   // float2, u of each strip's first and last row [down][across * OWN]
  int plane_at, plane_size;  // two planes of float for the median [down * ROWS + 2 * AROUND][across * OWN + 2 * AROUND]
};

// ------------------------------------------------------------------ where things are

// A block's shared memory begins with the sums of its strips and what concerns the whole block. Where the rest begins,
// `Arguments` says. Pointers would take twice the registers of these offsets, and lose what memory they are to.
#define CREDIT_AT (LANES * sizeof(double))  // double: mode cuda, the last change seen, lowered at every iteration since
#define PAIR_AT (CREDIT_AT + sizeof(double))
#define SLOT_AT (PAIR_AT + sizeof(int))
#define BLOCK_AT (SLOT_AT + sizeof(int))
#define ORDERS_AT (BLOCK_AT + sizeof(int))  // how many there were: the tag of the last
#define ROWS_AT (ORDERS_AT + sizeof(int))   // the same of messages of rows
#define SUMS_AT (ROWS_AT + sizeof(int))     // and of sums
#define COUNT_AT (SUMS_AT + sizeof(int))    // the iterations of this warping
#define WARPING_AT (COUNT_AT + sizeof(int))  // how many warpings have begun
#define NEXT_AT (WARPING_AT + sizeof(int))  // what comes next: of the following, those that apply
#define NEXT_FILTER 1
#define NEXT_LOOK 2  // at the change of the next iteration
#define NEXT_OVER 4  // nothing: the warping is over

template <class T>
DEVICE T& shared(int offset, int index) {
  return reinterpret_cast<T*>(shared_memory + offset)[index];
}

// Which of its block's strips a thread works on.
struct Strip {
  int x, y;
};

// Where a thread is. x and y are of its column and of its strip's first row, in the picture.
struct Place {
  int lane, strip, strip_x, strip_y, x, y;
  int slot, block;
};

// Computed where it is needed, and anew every time: there are no registers to keep it in.
DEVICE Place place_of(Strip strip, const Arguments& a) {
  int thread = threadIdx.x;
  forget(thread), forget(strip.x), forget(strip.y);
  Place place;
  place.lane = thread % LANES, place.strip = thread / LANES, place.strip_x = strip.x, place.strip_y = strip.y;
  place.slot = shared<int>(SLOT_AT, 0), place.block = shared<int>(BLOCK_AT, 0);
  place.x = place.strip_x * OWN + place.lane - 1, place.y = (place.block * a.down + place.strip_y) * ROWS;
  return place;
}

// What a warping gives each pixel: gradient along x and y, the reciprocal of its square, residual.
DEVICE float4& data_of(const Arguments& a, const Place& place, int r) {
  return shared<float4>(a.data_at, (place.strip * ROWS + r) * LANES + place.lane);
}

// u and p of a thread's column, and of the row above what its divergence needs.
struct State {
  float u1[ROWS], u2[ROWS], p11[ROWS], p12[ROWS], p21[ROWS], p22[ROWS];
  float above12, above22;
};

// ------------------------------------------------------------------ between blocks

// A packet's tag is the number of the message, of which every kind counts for itself. Two places serve in turn: by the
// time one is written again, whoever reads it has answered the message after it.

// Waits for the packet with this tag. Gives up, and says so, after the patience or when another thread has given up.
DEVICE Packet wait_for(const Packet* at, unsigned tag, const Arguments& a, bool& lost) {
  Packet packet = load_packet(at);
  if (packet.tag1 == tag && packet.tag2 == tag) return packet;
  long long since = nanoseconds();
  while (!lost) {
    packet = load_packet(at);
    if (packet.tag1 == tag && packet.tag2 == tag) break;
    if (load_flag(a.stuck)) lost = true;
    if (nanoseconds() - since > a.patience) {
      store_flag(a.stuck);
      lost = true;
    }
  }
  return packet;
}

DEVICE Packet packet_of(float value1, float value2, unsigned tag) {
  return {__float_as_uint(value1), tag, __float_as_uint(value2), tag};
}

// Row `k` from the first (end 0) or from the last (end 1) of a block of the same pair.
DEVICE Packet* row_mail(const Arguments& a, const Place& place, unsigned tag, int block, int end, int k) {
  int message = (place.slot * 2 + (int)(tag & 1)) * a.blocks + block;
  return a.rows + ((long long)(message * 2 + end) * AROUND + k) * a.width;
}

DEVICE Packet* sum_mail(const Arguments& a, const Place& place, unsigned tag, int block) {
  return a.sums + (place.slot * 2 + (int)(tag & 1)) * a.blocks + block;
}

// ------------------------------------------------------------------ an iteration

// u of one row: the data term's minimum (Zach eq. 15, one clamped division) plus theta div p (eq. 9).
DEVICE void update_flow(State& s, const Arguments& a, const Place& place, int r, float& change) {
  float left11 = __shfl_up_sync(ALL_LANES, s.p11[r], 1), left21 = __shfl_up_sync(ALL_LANES, s.p21[r], 1);
  float above12 = r > 0 ? s.p12[r > 0 ? r - 1 : 0] : s.above12, above22 = r > 0 ? s.p22[r > 0 ? r - 1 : 0] : s.above22;
  float4 d = data_of(a, place, r);
  float rho = d.w + (d.x * s.u1[r] + d.y * s.u2[r]);
  float step = fminf(fmaxf(-rho * d.z, -a.limit), a.limit);
  float new1 = (s.u1[r] + step * d.x) + a.theta * ((s.p11[r] - left11) + (s.p12[r] - above12));
  float new2 = (s.u2[r] + step * d.y) + a.theta * ((s.p21[r] - left21) + (s.p22[r] - above22));
  float change1 = new1 - s.u1[r], change2 = new2 - s.u2[r];
  change += change1 * change1 + change2 * change2;
  s.u1[r] = new1;
  s.u2[r] = new2;
}

// p = (p + tau/theta grad u) / (1 + tau/theta |grad u|), Zach eq. 11.
DEVICE void update_dual(float& along_x, float& along_y, float slope_x, float slope_y, float step) {
  float scale = fast_reciprocal(1.0f + step * fast_sqrt(slope_x * slope_x + slope_y * slope_y));
  along_x = (along_x + step * slope_x) * scale;
  along_y = (along_y + step * slope_y) * scale;
}

DEVICE void send_row(const State& s, int r, const Arguments& a, const Place& place, unsigned tag, int end) {
  if (place.lane > 0 && place.x < a.width)
    store_packet(row_mail(a, place, tag, place.block, end, 0) + place.x, packet_of(s.u1[r], s.u2[r], tag));
}

// u of the row above a strip, in the thread's column and right of it.
struct Above {
  float here1, here2, right1, right2;
};

// The new flow of the row above the strip, from another strip or another block.
DEVICE Above take_above(const Arguments& a, const Place& place, unsigned tag, bool& lost) {
  Above above = {0.0f, 0.0f, 0.0f, 0.0f};
  bool here = place.x >= 0 && place.x < a.width;
  bool right_here = place.lane == LANES - 1 && place.x + 1 < a.width && place.strip_x + 1 < a.across;
  if (place.strip_y > 0) {
    const float2* row = &shared<float2>(a.bottom_at, (place.strip_y - 1) * a.across * OWN);
    if (here) above.here1 = row[place.x].x, above.here2 = row[place.x].y;
    if (right_here) above.right1 = row[place.x + 1].x, above.right2 = row[place.x + 1].y;
  } else if (place.block > 0) {
    const Packet* row = row_mail(a, place, tag, place.block - 1, 1, 0) + place.x;
    if (here) {
      Packet packet = wait_for(row, tag, a, lost);
      above.here1 = __uint_as_float(packet.value1), above.here2 = __uint_as_float(packet.value2);
    }
    if (right_here) {
      Packet packet = wait_for(row + 1, tag, a, lost);
      above.right1 = __uint_as_float(packet.value1), above.right2 = __uint_as_float(packet.value2);
    }
  }
  float next1 = __shfl_down_sync(ALL_LANES, above.here1, 1), next2 = __shfl_down_sync(ALL_LANES, above.here2, 1);
  if (place.lane < LANES - 1) above.right1 = next1, above.right2 = next2;
  return above;
}

// The new flow of the row below the strip, in the thread's column.
DEVICE float2 take_below(const Arguments& a, const Place& place, unsigned tag, bool& lost) {
  if (place.x < 0 || place.x >= a.width) return make_float2(0.0f, 0.0f);
  if (place.strip_y + 1 < a.down) return shared<float2>(a.top_at, (place.strip_y + 1) * a.across * OWN + place.x);
  if (place.block + 1 == a.blocks) return make_float2(0.0f, 0.0f);
  Packet packet = wait_for(row_mail(a, place, tag, place.block + 1, 0, 0) + place.x, tag, a, lost);
  return make_float2(__uint_as_float(packet.value1), __uint_as_float(packet.value2));
}

// The new flow of the column left of the strip, from another strip.
DEVICE void take_left(State& s, const Arguments& a, const Place& place) {
  if (place.lane > 0 || place.strip_x == 0) return;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    float2 left = shared<float2>(a.last_at, (place.strip - 1) * ROWS + r);
    s.u1[r] = left.x;
    s.u2[r] = left.y;
  }
}

DEVICE void update_duals(State& s, const Arguments& a, const Place& place, unsigned tag, bool& lost) {
  const Above above = take_above(a, place, tag, lost);
  bool has_right = place.x + 1 < a.width;
  int rows_with_below = a.height - 1 - place.y;
  float unused1 = 0.0f, unused2 = 0.0f;
  update_dual(unused1, s.above12, has_right ? above.right1 - above.here1 : 0.0f, s.u1[0] - above.here1, a.dual_step);
  update_dual(unused2, s.above22, has_right ? above.right2 - above.here2 : 0.0f, s.u2[0] - above.here2, a.dual_step);
  if (place.y == 0 || place.y >= a.height) s.above12 = s.above22 = 0.0f;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    float right1 = __shfl_down_sync(ALL_LANES, s.u1[r], 1), right2 = __shfl_down_sync(ALL_LANES, s.u2[r], 1);
    if (place.lane == LANES - 1 && place.strip_x + 1 < a.across) {
      float2 next = shared<float2>(a.first_at, (place.strip + 1) * ROWS + r);
      right1 = next.x;
      right2 = next.y;
    }
    bool has_below = r < rows_with_below;
    // The row below the strip comes last: it has the longest to arrive, and takes no registers before.
    float2 below = r + 1 < ROWS ? make_float2(s.u1[r + 1 < ROWS ? r + 1 : r], s.u2[r + 1 < ROWS ? r + 1 : r])
                                : take_below(a, place, tag, lost);
    update_dual(s.p11[r], s.p12[r], has_right ? right1 - s.u1[r] : 0.0f, has_below ? below.x - s.u1[r] : 0.0f,
                a.dual_step);
    update_dual(s.p21[r], s.p22[r], has_right ? right2 - s.u2[r] : 0.0f, has_below ? below.y - s.u2[r] : 0.0f,
                a.dual_step);
    if (place.x < 0) s.p11[r] = s.p21[r] = 0.0f;
  }
}

// Sums of doubles are taken in a fixed order: by lanes, strips, then blocks.
DEVICE double sum_over_lanes(double value) {
#pragma unroll
  for (int k = LANES / 2; k > 0; k /= 2) value += __shfl_xor_sync(ALL_LANES, value, k);
  return value;
}

DEVICE void send_sum(const Arguments& a, const Place& place, unsigned tag) {
  double sum = sum_over_lanes(place.lane < a.across * a.down ? shared<double>(0, place.lane) : 0.0);
  unsigned long long bits = __double_as_longlong(sum);
  if (place.lane == 0)
    store_packet(sum_mail(a, place, tag, place.block), {(unsigned)bits, tag, (unsigned)(bits >> 32), tag});
}

DEVICE double sum_over_blocks(const Arguments& a, const Place& place, unsigned tag, bool& lost) {
  double sum = 0.0;
  for (int start = 0; start < a.blocks; start += LANES) {
    double part = 0.0;
    if (start + place.lane < a.blocks) {
      Packet packet = wait_for(sum_mail(a, place, tag, start + place.lane), tag, a, lost);
      part = __longlong_as_double((unsigned long long)packet.value2 << 32 | packet.value1);
    }
    sum += sum_over_lanes(part);
  }
  return sum;
}

// Ends when all blocks of the pair have come here. False where one did not.
DEVICE bool meet(const Arguments& a, const Place& place) {
  bool lost = false;
  if (place.strip == 0) {
    unsigned tag = shared<unsigned>(SUMS_AT, 0) + 1;
    if (place.lane == 0) store_packet(sum_mail(a, place, tag, place.block), {0, tag, 0, tag});
    sum_over_blocks(a, place, tag, lost);
    if (place.lane == 0) shared<unsigned>(SUMS_AT, 0) = tag;
  }
  return !__syncthreads_or(lost);
}

// What comes after `count` iterations. As the CPU class: rounds that start with a median filter, and a look at the change
// of every iteration. As the CUDA class: no filter, and the larger the change was, the longer the next look waits.
DEVICE int next_after(int count, double credit, const Arguments& a) {
  bool look = !a.like_cuda || (a.threshold > 0.0 && count % 2 == 1 && credit < a.threshold);
  bool filter = a.median > 1 && count % a.inner == 0;
  return (filter ? NEXT_FILTER : 0) | (look ? NEXT_LOOK : 0) | (count == a.inner * a.outer ? NEXT_OVER : 0);
}

// One thread decides for its block; all blocks decide alike, as their sums have the same bits.
DEVICE void decide(bool look, double change, const Arguments& a) {
  double& credit = shared<double>(CREDIT_AT, 0);
  credit = look ? change : credit - a.threshold;
  int next = next_after(++shared<int>(COUNT_AT, 0), credit, a);
  shared<int>(NEXT_AT, 0) = look && change <= a.threshold ? NEXT_OVER : next;
}

// One iteration, and what comes next; `tag`: of its rows. False where a block waited in vain.
DEVICE bool iterate(State& s, const Arguments& a, Strip strip, bool look, unsigned tag) {
  const Place place = place_of(strip, a);
  float squares = 0.0f;
  // The rows that other blocks wait for come first. They need no new value of another row.
  update_flow(s, a, place, 0, squares);
  if (place.strip_y == 0 && place.block > 0) send_row(s, 0, a, place, tag, 0);
  update_flow(s, a, place, ROWS - 1, squares);
  if (place.strip_y + 1 == a.down && place.block + 1 < a.blocks) send_row(s, ROWS - 1, a, place, tag, 1);
#pragma unroll
  for (int r = 1; r < ROWS - 1; r++) update_flow(s, a, place, r, squares);

#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    if (place.lane == 1) shared<float2>(a.first_at, place.strip * ROWS + r) = make_float2(s.u1[r], s.u2[r]);
    if (place.lane == LANES - 1) shared<float2>(a.last_at, place.strip * ROWS + r) = make_float2(s.u1[r], s.u2[r]);
  }
  if (a.down > 1 && place.lane > 0) {
    int at = place.strip_y * a.across * OWN + place.strip_x * OWN + place.lane - 1;
    shared<float2>(a.top_at, at) = make_float2(s.u1[0], s.u2[0]);
    shared<float2>(a.bottom_at, at) = make_float2(s.u1[ROWS - 1], s.u2[ROWS - 1]);
  }
  if (look) {
    double sum = sum_over_lanes(place.lane == 0 ? 0.0 : (double)squares);
    if (place.lane == 0) shared<double>(0, place.strip) = sum;
  }
  __syncthreads();
  if (look && place.strip == 0) send_sum(a, place, shared<unsigned>(SUMS_AT, 0) + 1);
  bool lost = false;
  take_left(s, a, place);
  update_duals(s, a, place, tag, lost);
  // The duals do not depend on whether this was the last iteration: the other blocks' sums arrive meanwhile.
  if (place.strip == 0) {
    double change = look ? sum_over_blocks(a, place, shared<unsigned>(SUMS_AT, 0) + 1, lost) : 0.0;
    if (place.lane == 0) {
      shared<unsigned>(ROWS_AT, 0) = tag;
      shared<unsigned>(SUMS_AT, 0) += look;
      decide(look, change, a);
    }
  }
  return !__syncthreads_or(lost);
}

// ------------------------------------------------------------------ median filter

#define EXCHANGE(a, b)              \
  {                                 \
    float smaller = fminf(v[a], v[b]); \
    v[b] = fmaxf(v[a], v[b]);       \
    v[a] = smaller;                 \
  }

template <int SIDE>
DEVICE void sort_column(float (&v)[SIDE]);
template <>
DEVICE void sort_column<3>(float (&v)[3]) { SORT_3(EXCHANGE) }
template <>
DEVICE void sort_column<5>(float (&v)[5]) { SORT_5(EXCHANGE) }

template <int SIDE>
DEVICE float median_of_columns(float (&v)[SIDE * SIDE]);
template <>
DEVICE float median_of_columns<3>(float (&v)[9]) {
  MEDIAN_OF_COLUMNS_3(EXCHANGE)
  return v[MEDIAN_AT];
}
template <>
DEVICE float median_of_columns<5>(float (&v)[25]) {
  MEDIAN_OF_COLUMNS_5(EXCHANGE)
  return v[MEDIAN_AT];
}

// Of the pixel in row y of the block. The picture's border is repeated outwards: coordinates are clamped.
template <int SIDE>
DEVICE float median_around(int plane_at, const Arguments& a, const Place& place, int y) {
  int tall = a.down * ROWS, stride = a.across * OWN + 2 * AROUND, first = place.block * tall;
  int low = max(-AROUND, -first), high = min(tall + AROUND, a.height - first) - 1;  // rows of the plane that exist
  float lines[SIDE * SIDE];
#pragma unroll
  for (int i = 0; i < SIDE; i++) {
    int x = min(max(place.x + i - SIDE / 2, 0), a.width - 1);
    float column[SIDE];
#pragma unroll
    for (int j = 0; j < SIDE; j++) {
      int near_y = min(max(y + j - SIDE / 2, low), high);
      column[j] = shared<float>(plane_at, (near_y + AROUND) * stride + x + AROUND);
    }
    sort_column<SIDE>(column);
#pragma unroll
    for (int j = 0; j < SIDE; j++) lines[SIDE * j + i] = column[j];
  }
  return median_of_columns<SIDE>(lines);
}

// Moves every row's value to the row before, and `value` to the last: registers have no index, so a loop over the rows
// that is not unrolled always works on the first.
template <int COUNT>
DEVICE void rotate(float (&rows)[COUNT], float value) {
#pragma unroll
  for (int k = 0; k + 1 < COUNT; k++) rows[k] = rows[k + 1];
  rows[COUNT - 1] = value;
}

// Filters both components. False where a block waited in vain.
DEVICE bool median_filter(State& s, const Arguments& a, Strip strip, unsigned tag) {
  const Place place = place_of(strip, a);
  bool lost = false;
  int tall = a.down * ROWS, stride = a.across * OWN + 2 * AROUND;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    if (place.lane == 0 || place.x >= a.width || place.y + r >= a.height) continue;
    int y = place.strip_y * ROWS + r, at = (y + AROUND) * stride + place.x + AROUND;
    shared<float>(a.plane_at, at) = s.u1[r];
    shared<float>(a.plane_at + a.plane_size, at) = s.u2[r];
    Packet packet = packet_of(s.u1[r], s.u2[r], tag);
    if (y < AROUND && place.block > 0)
      store_packet(row_mail(a, place, tag, place.block, 0, y) + place.x, packet);
    if (tall - 1 - y < AROUND && place.block + 1 < a.blocks)
      store_packet(row_mail(a, place, tag, place.block, 1, tall - 1 - y) + place.x, packet);
  }
  int below = min(AROUND, a.height - (place.block + 1) * tall);  // rows that the next block has of these
  for (int index = threadIdx.x; index < a.width * AROUND; index += LANES * a.across * a.down) {
    int k = index / a.width, x = index % a.width;
    if (place.block > 0) {
      Packet packet = wait_for(row_mail(a, place, tag, place.block - 1, 1, k) + x, tag, a, lost);
      int at = (AROUND - 1 - k) * stride + x + AROUND;
      shared<float>(a.plane_at, at) = __uint_as_float(packet.value1);
      shared<float>(a.plane_at + a.plane_size, at) = __uint_as_float(packet.value2);
    }
    if (k < below) {
      Packet packet = wait_for(row_mail(a, place, tag, place.block + 1, 0, k) + x, tag, a, lost);
      int at = (AROUND + tall + k) * stride + x + AROUND;
      shared<float>(a.plane_at, at) = __uint_as_float(packet.value1);
      shared<float>(a.plane_at + a.plane_size, at) = __uint_as_float(packet.value2);
    }
  }
  if (__syncthreads_or(lost)) return false;
  // The new u1 waits in the old one's plane: there are no registers for it while u2 is filtered.
#pragma unroll 1
  for (int component = 0; component < 2; component++) {
#pragma unroll 1
    for (int r = 0; r < ROWS; r++) {
      const Place here = place_of(strip, a);
      int y = here.strip_y * ROWS + r;
      int plane_at = a.plane_at + component * a.plane_size;
      float median = a.median == 5 ? median_around<5>(plane_at, a, here, y) : median_around<3>(plane_at, a, here, y);
      rotate(s.u1, here.lane > 0 && here.x < a.width && here.y + r < a.height ? median : 0.0f);
    }
    if (component == 0) {
      __syncthreads();
      const Place here = place_of(strip, a);
#pragma unroll
      for (int r = 0; r < ROWS; r++)
        if (here.lane > 0 && here.x < a.width && here.y + r < a.height)
          shared<float>(a.plane_at, (here.strip_y * ROWS + r + AROUND) * stride + here.x + AROUND) = s.u1[r];
    }
  }
  const Place here = place_of(strip, a);
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    int at = (here.strip_y * ROWS + r + AROUND) * stride + here.x + AROUND;
    s.u2[r] = s.u1[r];
    s.u1[r] = here.lane > 0 && here.x < a.width && here.y + r < a.height ? shared<float>(a.plane_at, at) : 0.0f;
  }
  return true;
}

// ------------------------------------------------------------------ a warping

// Keys' cubic kernel for the pixels at -1, 0, 1, 2 of a point at f in 0..1.
DEVICE void cubic_weights(float f, float a, float (&w)[4]) {
  float far0 = 1.0f + f, near2 = 1.0f - f;
  w[0] = ((a * far0 - 5.0f * a) * far0 + 8.0f * a) * far0 - 4.0f * a;
  w[1] = ((a + 2.0f) * f - (a + 3.0f)) * f * f + 1.0f;
  w[2] = ((a + 2.0f) * near2 - (a + 3.0f)) * near2 * near2 + 1.0f;
  w[3] = 1.0f - w[0] - w[1] - w[2];
}

// What the iterations need of frame 1 and its gradient at (x, y) + u. Pixels outside count as 0 or, like_cuda, as the
// nearest inside, with the sum of the weights divided out. Of the 4 x 4 pixels a row at a time is in registers: with all
// of them, strips of 4 rows spilled.
DEVICE float4 linearise(const float4* images, const Arguments& a, int x, int y, float u1, float u2) {
  float at_x = (float)x + u1, at_y = (float)y + u2, floor_x = floorf(at_x), floor_y = floorf(at_y);
  int left = (int)floor_x - 1, top = (int)floor_y - 1;
  float weights_x[4], weights_y[4], sharpness = a.like_cuda ? -0.5f : -0.75f;
  cubic_weights(at_x - floor_x, sharpness, weights_x);
  cubic_weights(at_y - floor_y, sharpness, weights_y);
  float value = 0.0f, grad_x = 0.0f, grad_y = 0.0f;
#pragma unroll 1
  for (int j = 0; j < 4; j++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int near_x = min(max(left + i, 0), a.width - 1), near_y = min(max(top + j, 0), a.height - 1);
      bool inside = near_x == left + i && near_y == top + j;
      if (inside || a.like_cuda) {
        float4 pixel = images[near_y * a.width + near_x];
        float weight = weights_y[0] * weights_x[i];
        value += weight * pixel.x;
        grad_x += weight * pixel.y;
        grad_y += weight * pixel.z;
      }
    }
    rotate(weights_y, weights_y[0]);
  }
  if (a.like_cuda) {
    float total = (weights_x[0] + weights_x[1] + weights_x[2] + weights_x[3]) *
                  (weights_y[0] + weights_y[1] + weights_y[2] + weights_y[3]);
    value /= total;
    grad_x /= total;
    grad_y /= total;
  }
  float norm = grad_x * grad_x + grad_y * grad_y;
  float residual = value - (grad_x * u1 + grad_y * u2) - images[y * a.width + x].w;
  return make_float4(grad_x, grad_y, norm > 0.0f ? 1.0f / fmaxf(norm, 1e-30f) : 0.0f, residual);
}

DEVICE void begin_warping(State& s, const Arguments& a, Strip strip) {
  const float4* images = a.images + (long long)shared<int>(PAIR_AT, 0) * a.height * a.width;
#pragma unroll 1
  for (int r = 0; r < ROWS; r++) {
    const Place place = place_of(strip, a);
    bool inside = place.lane > 0 && place.x < a.width && place.y + r < a.height;
    float4 data = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (inside) data = linearise(images, a, place.x, place.y + r, s.u1[0], s.u2[0]);
    data_of(a, place, r) = data;  // read by this thread alone
    rotate(s.u1, s.u1[0]);
    rotate(s.u2, s.u2[0]);
  }
}

// The iterations of one warping. False where a block waited in vain.
DEVICE bool solve_warping(State& s, const Arguments& a, Strip strip) {
  __syncthreads();  // all threads know that the last warping is over
  if (threadIdx.x == 0) {
    shared<double>(CREDIT_AT, 0) = 0.0;
    shared<int>(COUNT_AT, 0) = 0;
    shared<int>(WARPING_AT, 0)++;
    shared<int>(NEXT_AT, 0) = next_after(0, 0.0, a);
  }
  __syncthreads();
#pragma unroll 1
  for (;;) {
    int next = shared<int>(NEXT_AT, 0);
    if (next & NEXT_OVER) return true;
    unsigned tag = shared<unsigned>(ROWS_AT, 0) + 1;
    if (next & NEXT_FILTER && !median_filter(s, a, strip, tag++)) return false;
    if (!iterate(s, a, strip, next & NEXT_LOOK, tag)) return false;
  }
}

// ------------------------------------------------------------------ the level

// Where the flow of the pair that the block works on begins.
DEVICE float* flow_of_pair(const Arguments& a) {
  return a.flow + 2 * (long long)shared<int>(PAIR_AT, 0) * a.height * a.width;
}

// The flow of that pair. False where a block waited in vain.
DEVICE bool solve_pair(const Arguments& a, Strip strip) {
  Place place = place_of(strip, a);
  float* flow = flow_of_pair(a);
  int plane = a.height * a.width;
  State s;
  s.above12 = s.above22 = 0.0f;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    bool inside = place.x >= 0 && place.x < a.width && place.y + r < a.height;
    int at = (place.y + r) * a.width + place.x;
    s.u1[r] = inside ? flow[at] : 0.0f;
    s.u2[r] = inside ? flow[plane + at] : 0.0f;
    s.p11[r] = s.p12[r] = s.p21[r] = s.p22[r] = 0.0f;
  }
  if (threadIdx.x == 0) shared<int>(WARPING_AT, 0) = 0;
#pragma unroll 1
  do {
    begin_warping(s, a, strip);
    if (!solve_warping(s, a, strip)) return false;
    if (a.iterations && threadIdx.x == 0 && shared<int>(BLOCK_AT, 0) == 0)
      a.iterations[shared<int>(PAIR_AT, 0) * a.warpings + shared<int>(WARPING_AT, 0) - 1] = shared<int>(COUNT_AT, 0);
  } while (shared<int>(WARPING_AT, 0) < a.warpings);
  place = place_of(strip, a);
  flow = flow_of_pair(a);
  int width = a.width;
  forget(width);
  plane = a.height * width;
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    int at = (place.y + r) * a.width + place.x;
    if (place.lane > 0 && place.x < a.width && place.y + r < a.height) flow[at] = s.u1[r], flow[plane + at] = s.u2[r];
  }
  return meet(a, place);  // before the next order is written over this pair's
}

// `blocks` blocks in a row share a slot, and take one pair after the other from the queue.
extern "C" __global__ void __launch_bounds__(LANES* MOST_STRIPS, 1) solve_level(const __grid_constant__ Arguments a) {
  Strip strip = {(int)threadIdx.x / LANES % a.across, (int)threadIdx.x / LANES / a.across};
  if (threadIdx.x == 0) {
    shared<int>(SLOT_AT, 0) = blockIdx.x / a.blocks;
    shared<int>(BLOCK_AT, 0) = blockIdx.x % a.blocks;
    shared<unsigned>(ORDERS_AT, 0) = shared<unsigned>(ROWS_AT, 0) = shared<unsigned>(SUMS_AT, 0) = 0;
  }
  __syncthreads();
  for (;;) {
    // The first block takes the next pair, and tells the others.
    bool lost = false;
    if (threadIdx.x == 0) {
      Packet* order = a.orders + shared<int>(SLOT_AT, 0);
      unsigned tag = ++shared<unsigned>(ORDERS_AT, 0);
      if (shared<int>(BLOCK_AT, 0) == 0) {
        unsigned next = atomicAdd(a.queue, 1u);
        store_packet(order, {next, tag, next, tag});
        shared<int>(PAIR_AT, 0) = (int)next;
      } else {
        shared<int>(PAIR_AT, 0) = (int)wait_for(order, tag, a, lost).value1;
      }
    }
    if (__syncthreads_or(lost)) return;
    if (shared<int>(PAIR_AT, 0) >= a.pairs || !solve_pair(a, strip)) return;
  }
}
