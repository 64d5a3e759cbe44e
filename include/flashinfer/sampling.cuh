// SPDX-License-Identifier: Apache-2.0
// Sampling of tokens, softmax, and filters of whole rows: one cluster of blocks a row.
#pragma once
#include <flashinfer/sampling/renorm.cuh>
#include <flashinfer/sampling/sample.cuh>
#include <flashinfer/sampling/speculative.cuh>
