// CUDA C for cuda.py: batch norm with neurons, moments, depthwise convolution, max-pool, AdamW. The derivations
// stand beside the ops (neuron.py, ops/norm.py, ops/conv.py, ops/pool.py, optim.py).
//
// Settings come as #defines, so that the compiler sees constants:
//     REAL                                  float or double
//     T_STEPS                               T
//     TAU V_THRESHOLD REST LEAK ALPHA       numbers; they are rounded to real before anything is computed
//     NORM                                  1: batch norm before the neuron, 0: the neuron alone
//     STATIC                                1: x is [1, ...], shown at each of T steps
//     SOFT DETACHED                         the reset
//     SURROGATE                             0 Sigmoid, 1 ATan, 2 Triangle, 3 Rectangle, 4 FastSigmoid
//
// A tensor [steps, n] is n = positions * C values a step, channels last. A block of LANES x ROWS threads takes
// LANES neighbouring channels (blockIdx.y says which), and its rows walk over the positions. So neighbouring
// threads read neighbouring values, and a thread keeps its channel.
//
// What is added up over positions is added up in a fixed order, without atomics: by a thread in double, by a
// block into `parts`, and over the blocks by a second kernel. So a run repeats bit for bit.
//
// Threads meet between two phases, never inside one: a phase is a block { } behind EACH_THREAD, and only shared
// memory lives from one to the next. Tests compile this text by a C++ compiler, with a loop there.

#ifndef EACH_THREAD
#define EACH_THREAD
#define BARRIER __syncthreads();
#endif

#define LANES 32
#define ROWS 8
#define FEW 16  // values that are added up in real before they go into a sum in double
#define KERNEL extern "C" __global__ void

typedef REAL real;
typedef long long index;

// ---------------------------------------------------------------- one neuron

constexpr real tau = (real)TAU, v_threshold = (real)V_THRESHOLD, rest = (real)REST, leak = (real)LEAK;
constexpr int T = T_STEPS;
constexpr real alpha = (real)ALPHA;

__device__ real charge(real x, real v) { return v + (x - (v - rest)) / tau; }

__device__ real after_reset(real h) {
    if (h >= v_threshold) return SOFT ? h - v_threshold : rest;
    return h;
}

__device__ real slope(real h) {  // of the surrogate, g'(H - v_threshold)
    const real u = h - v_threshold;
#if SURROGATE == 0
    const real e = exp(-fabs(alpha * u)), q = 1 / (1 + e);  // alpha s (1 - s), s = 1 / (1 + e)
    return alpha * e * q * q;
#elif SURROGATE == 1
    const real z = (real)(0.5 * 3.14159265358979323846 * (ALPHA)) * u;
    return (real)(0.5 * (ALPHA)) / (1 + z * z);
#elif SURROGATE == 2
    const real g = alpha - (real)((ALPHA) * (ALPHA)) * fabs(u);
    return g < 0 ? 0 : g;  // NaN stays
#elif SURROGATE == 3
    return fabs(u) < (real)(0.5 / (ALPHA)) ? alpha : 0;
#else
    const real z = 1 + alpha * fabs(u);
    return (real)(0.5 * (ALPHA)) / (z * z);
#endif
}

// gH of one step from gS and gV; see neuron.py
__device__ real step_back(real h, real gs, real gv) {
    const real g = slope(h);
    real through = SOFT || h < v_threshold ? gv : 0;
    if (!DETACHED) through += gv * (SOFT ? -v_threshold : rest - h) * g;
    return gs * g + through;
}

// ---------------------------------------------------------------- batch norm and neurons

struct Norm {  // y = scale (x - mean) + shift of one channel, scale = gamma r
    real mean, r, scale, shift;
    __device__ real operator()(real x) const { return NORM ? (x - mean) * scale + shift : x; }
};

__device__ Norm norm_of(const real* mean, const real* var, const real* gamma, const real* beta, real eps, int c) {
    Norm norm = {0, 1, 1, 0};
    if (NORM) {
        norm.mean = mean[c];
        norm.r = 1 / sqrt(var[c] + eps);
        norm.scale = gamma[c] * norm.r;
        norm.shift = beta[c];
    }
    return norm;
}

KERNEL normalise_and_fire(const real* x, const real* mean, const real* var, const real* gamma,
                          const real* beta, real eps, index n, int C, real* s) {
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        if (c < C) {
            const Norm norm = norm_of(mean, var, gamma, beta, eps, c);
            const index step = (index)gridDim.x * ROWS * C;
            for (index i = ((index)blockIdx.x * ROWS + threadIdx.y) * C + c; i < n; i += step) {
                real v = rest, y = norm(x[i]);
                for (int t = 0; t < T; t++) {
                    if (t > 0 && !STATIC) y = norm(x[t * n + i]);
                    const real h = charge(y, v);
                    s[t * n + i] = h >= v_threshold ? 1 : 0;
                    v = after_reset(h);
                }
            }
        }
    }
}

// gx becomes the gradient of the neurons' current, in x's shape; parts [gridDim.x, 2, C] its sums over a block's
// positions: alone, and times x - mean. H is computed again.
KERNEL back_through_time(const real* x, const real* gy, const real* mean, const real* var,
                         const real* gamma, const real* beta, real eps, index n, int C, real* gx,
                         double* parts) {
    __shared__ double sums[2][ROWS][LANES];
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        double sum_g = 0, sum_gx = 0;
        if (c < C) {
            const Norm norm = norm_of(mean, var, gamma, beta, eps, c);
            const index step = (index)gridDim.x * ROWS * C;
            real part_g = 0, part_gx = 0;
            int added = 0;
            for (index i = ((index)blockIdx.x * ROWS + threadIdx.y) * C + c; i < n; i += step) {
                real h[T], v = rest, gv = 0, total = 0, y = norm(x[i]);
#pragma unroll  // so that h[t] is a register
                for (int t = 0; t < T; t++) {
                    if (t > 0 && !STATIC) y = norm(x[t * n + i]);
                    h[t] = charge(y, v);
                    v = after_reset(h[t]);
                }
#pragma unroll
                for (int t = T - 1; t >= 0; t--) {
                    const real gh = step_back(h[t], gy[t * n + i], gv), g = gh / tau;
                    gv = gh * leak;
                    if (STATIC) {
                        total += g;
                    } else {
                        gx[t * n + i] = g;
                        part_g += g;
                        if (NORM) part_gx += g * (x[t * n + i] - norm.mean);
                    }
                }
                if (STATIC) {
                    gx[i] = total;
                    part_g += total;
                    if (NORM) part_gx += total * (x[i] - norm.mean);
                }
                added += STATIC ? 1 : T;
                if (added >= FEW || i + step >= n) {
                    sum_g += part_g, sum_gx += part_gx;
                    part_g = part_gx = 0, added = 0;
                }
            }
        }
        sums[0][threadIdx.y][threadIdx.x] = sum_g;
        sums[1][threadIdx.y][threadIdx.x] = sum_gx;
    }
    BARRIER
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        if (NORM && threadIdx.y < 2 && c < C) {
            double total = 0;
            for (int row = 0; row < ROWS; row++) total += sums[threadIdx.y][row][threadIdx.x];
            parts[((index)blockIdx.x * 2 + threadIdx.y) * C + c] = total;
        }
    }
}

// sums [rows, C] of parts [count, rows, C]; a block has LANES x LANES threads for one row
KERNEL __launch_bounds__(LANES * LANES) add_up(const double* parts, int count, int C, double* sums) {
    __shared__ double found[LANES][LANES];
    EACH_THREAD {
        const int c = blockIdx.x * LANES + threadIdx.x;
        double total = 0;
        if (c < C)
            for (int k = threadIdx.y; k < count; k += LANES)
                total += parts[((index)k * gridDim.y + blockIdx.y) * C + c];
        found[threadIdx.y][threadIdx.x] = total;
    }
    BARRIER
    EACH_THREAD {
        const int c = blockIdx.x * LANES + threadIdx.x;
        if (threadIdx.y == 0 && c < C) {
            double total = 0;
            for (int k = 0; k < LANES; k++) total += found[k][threadIdx.x];
            sums[blockIdx.y * C + c] = total;
        }
    }
}

// gx = (gx - gbeta / rows - (x - mean) ggamma r / rows) scale, in place; own = 0: gx = gx scale.
// sums [2, C] are those of back_through_time: gbeta, and ggamma / r
KERNEL spread(const real* x, const real* mean, const real* var, const real* gamma,
              const double* sums, real eps, index n, int C, int own, real* gx, real* ggamma,
              real* gbeta) {
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        if (c < C) {
            const Norm norm = norm_of(mean, var, gamma, gamma, eps, c);
            const real rows = (real)(n / C), g_beta = (real)sums[c], g_gamma = (real)sums[C + c] * norm.r;
            const real mean_g = own ? g_beta / rows : 0, along = own ? g_gamma * norm.r / rows : 0;
            const index first = ((index)blockIdx.x * ROWS + threadIdx.y) * C + c;
            for (index i = first; i < n; i += (index)gridDim.x * ROWS * C)
                gx[i] = (gx[i] - mean_g - (x[i] - norm.mean) * along) * norm.scale;
            if (first == c) ggamma[c] = g_gamma, gbeta[c] = g_beta;
        }
    }
}

// ---------------------------------------------------------------- moments

struct Moments {  // of k values: their mean, and the sum of squares about it
    double k, mean, squares;
};

__device__ Moments merge(Moments a, Moments b) {  // Chan, Golub & LeVeque 1979
    if (b.k == 0) return a;
    const double k = a.k + b.k, d = b.mean - a.mean;
    Moments both = {k, a.mean + d * b.k / k, a.squares + b.squares + d * d * a.k * b.k / k};
    return both;
}

// parts [gridDim.x, 3, C]: k, mean and squares of each block's share of the rows of x [rows, C]. A thread takes
// FEW rows at a time: their mean by differences to the first, then the squares about it.
KERNEL moments(const real* x, index rows, int C, double* parts) {
    __shared__ Moments found[ROWS][LANES];
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        Moments all = {0, 0, 0};
        if (c < C) {
            const index step = (index)gridDim.x * ROWS;
            for (index first = (index)blockIdx.x * ROWS + threadIdx.y; first < rows; first += FEW * step) {
                real value[FEW], sum = 0, squares = 0;
                int k = 0;
                for (int j = 0; j < FEW; j++) {
                    const index row = first + j * step;
                    value[j] = row < rows ? x[row * C + c] : value[0];
                    k += row < rows;
                    sum += value[j] - value[0];
                }
                const double exact = value[0] + (double)sum / k;
                const real m = (real)exact;
                for (int j = 0; j < FEW; j++)
                    if (j < k) squares += (value[j] - m) * (value[j] - m);
                const double off = (exact - m) * (exact - m) * k;  // m is the mean, rounded
                Moments few = {(double)k, exact, squares > off ? squares - off : squares * 0};
                all = merge(all, few);
            }
        }
        found[threadIdx.y][threadIdx.x] = all;
    }
    BARRIER
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        if (threadIdx.y == 0 && c < C) {
            Moments all = found[0][threadIdx.x];
            for (int row = 1; row < ROWS; row++) all = merge(all, found[row][threadIdx.x]);
            double* place = parts + (index)blockIdx.x * 3 * C + c;
            place[0] = all.k, place[C] = all.mean, place[2 * C] = all.squares;
        }
    }
}

// mean and biased variance [C] of parts [count, 3, C]; a block has LANES x LANES threads
KERNEL __launch_bounds__(LANES * LANES) merge_moments(const double* parts, int count, int C, real* mean, real* var) {
    __shared__ Moments found[LANES][LANES];
    EACH_THREAD {
        const int c = blockIdx.x * LANES + threadIdx.x;
        Moments all = {0, 0, 0};
        if (c < C)
            for (int part = threadIdx.y; part < count; part += LANES) {
                const double* place = parts + (index)part * 3 * C + c;
                Moments next = {place[0], place[C], place[2 * C]};
                all = merge(all, next);
            }
        found[threadIdx.y][threadIdx.x] = all;
    }
    BARRIER
    EACH_THREAD {
        const int c = blockIdx.x * LANES + threadIdx.x;
        if (threadIdx.y == 0 && c < C) {
            Moments all = found[0][threadIdx.x];
            for (int part = 1; part < LANES; part++) all = merge(all, found[part][threadIdx.x]);
            mean[c] = (real)all.mean, var[c] = (real)(all.squares / all.k);
        }
    }
}

// running statistics towards a batch's: see norm.move_running. keep = 1 - momentum
KERNEL move_running(real* running_mean, real* running_var, const real* mean, const real* var,
                    real keep, real momentum, real unbias, int C) {
    EACH_THREAD {
        const int c = blockIdx.x * blockDim.x + threadIdx.x;
        if (c < C) {
            running_mean[c] = keep * running_mean[c] + momentum * mean[c];
            running_var[c] = keep * running_var[c] + momentum * (var[c] * unbias);
        }
    }
}

// ---------------------------------------------------------------- depthwise convolution

// x [images, H, W, C], w [kh, kw, C], b [C] or null -> y [windows, C], windows = images * height * width
KERNEL depthwise(const real* x, const real* w, const real* b, int H, int W, int C, int kh, int kw,
                 int stride, int padding, int height, int width, int windows, real* y) {
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        if (c < C)
            for (int at = blockIdx.x * ROWS + threadIdx.y; at < windows; at += gridDim.x * ROWS) {
                const int q = at % width, p = at / width % height;
                const real* image = x + (index)(at / width / height) * H * W * C + c;
                real total = 0;
                for (int i = 0; i < kh; i++)
                    for (int j = 0; j < kw; j++) {
                        const int row = p * stride + i - padding, column = q * stride + j - padding;
                        if (row < 0 || row >= H || column < 0 || column >= W) continue;
                        total += image[((index)row * W + column) * C] * w[(i * kw + j) * C + c];
                    }
                y[(index)at * C + c] = b ? total + b[c] : total;
            }
    }
}

// gx [places, C] of images [H, W]: each place collects from the windows that saw it
KERNEL depthwise_back(const real* gy, const real* w, int H, int W, int C, int kh, int kw, int stride,
                      int padding, int height, int width, int places, real* gx) {
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        if (c < C)
            for (int at = blockIdx.x * ROWS + threadIdx.y; at < places; at += gridDim.x * ROWS) {
                const int column = at % W, row = at / W % H, image = at / W / H;
                real total = 0;
                for (int i = 0; i < kh; i++)
                    for (int j = 0; j < kw; j++) {
                        const int down = row + padding - i, right = column + padding - j;
                        if (down < 0 || right < 0 || down % stride || right % stride) continue;
                        const int p = down / stride, q = right / stride;
                        if (p >= height || q >= width) continue;
                        total += gy[(((index)image * height + p) * width + q) * C + c] * w[(i * kw + j) * C + c];
                    }
                gx[(index)at * C + c] = total;
            }
    }
}

// parts [gridDim.x, kh * kw, C]: sums of x gy over a block's windows, for the tap blockIdx.z
KERNEL depthwise_weights(const real* x, const real* gy, int H, int W, int C, int kh, int kw,
                         int stride, int padding, int height, int width, int windows,
                         double* parts) {
    __shared__ double sums[ROWS][LANES];
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x, i = blockIdx.z / kw, j = blockIdx.z % kw;
        double total = 0;
        real part = 0;
        int added = 0;
        if (c < C)
            for (int at = blockIdx.x * ROWS + threadIdx.y; at < windows; at += gridDim.x * ROWS) {
                const int q = at % width, p = at / width % height, image = at / width / height;
                const int row = p * stride + i - padding, column = q * stride + j - padding;
                if (row >= 0 && row < H && column >= 0 && column < W)
                    part += x[(((index)image * H + row) * W + column) * C + c] * gy[(index)at * C + c];
                if (++added == FEW) total += part, part = 0, added = 0;
            }
        sums[threadIdx.y][threadIdx.x] = total + part;
    }
    BARRIER
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        if (threadIdx.y == 0 && c < C) {
            double total = 0;
            for (int row = 0; row < ROWS; row++) total += sums[row][threadIdx.x];
            parts[((index)blockIdx.x * kh * kw + blockIdx.z) * C + c] = total;
        }
    }
}

// ---------------------------------------------------------------- max-pool

// x [images, H, W, C] -> y and winner [windows, C]. The first maximum's tap wins; lowest: -infinity.
KERNEL max_pool(const real* x, int H, int W, int C, int k, int stride, int padding, int height,
                int width, int windows, real lowest, real* y, unsigned char* winner) {
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        if (c < C)
            for (int at = blockIdx.x * ROWS + threadIdx.y; at < windows; at += gridDim.x * ROWS) {
                const int q = at % width, p = at / width % height;
                const real* image = x + (index)(at / width / height) * H * W * C + c;
                real best = lowest;
                int tap = 0;
                for (int i = 0; i < k; i++)
                    for (int j = 0; j < k; j++) {
                        const int row = p * stride + i - padding, column = q * stride + j - padding;
                        if (row < 0 || row >= H || column < 0 || column >= W) continue;
                        const real value = image[((index)row * W + column) * C];
                        if (value > best) tap = i * k + j;
                        if (value > best || value != value) best = value;  // NaN stays
                    }
                y[(index)at * C + c] = best, winner[(index)at * C + c] = tap;
            }
    }
}

// gx [places, C] of images [H, W]: each collects from the windows that it won, in the order of the taps
KERNEL max_pool_back(const real* gy, const unsigned char* winner, int H, int W, int C, int k,
                     int stride, int padding, int height, int width, int places, real* gx) {
    EACH_THREAD {
        const int c = blockIdx.y * LANES + threadIdx.x;
        if (c < C)
            for (int at = blockIdx.x * ROWS + threadIdx.y; at < places; at += gridDim.x * ROWS) {
                const int column = at % W, row = at / W % H, image = at / W / H;
                real total = 0;
                for (int i = 0; i < k; i++)
                    for (int j = 0; j < k; j++) {
                        const int down = row + padding - i, right = column + padding - j;
                        if (down < 0 || right < 0 || down % stride || right % stride) continue;
                        const int p = down / stride, q = right / stride;
                        if (p >= height || q >= width) continue;
                        const index window = (((index)image * height + p) * width + q) * C + c;
                        if (winner[window] == i * k + j) total += gy[window];
                    }
                gx[(index)at * C + c] = total;
            }
    }
}

// ---------------------------------------------------------------- AdamW

KERNEL adamw(real* p, const real* g, real* m, real* v, real keep, real to_g, real to_square,
             real rate, real correction, real eps, index n) {
    EACH_THREAD {
        const index i = (index)blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) {
            m[i] += to_g * (g[i] - m[i]);
            v[i] += to_square * (g[i] * g[i] - v[i]);
            p[i] = p[i] * keep - rate * m[i] / (sqrt(v[i] / correction) + eps);
        }
    }
}
