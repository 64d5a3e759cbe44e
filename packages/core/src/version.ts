// SPDX-License-Identifier: Apache-2.0
import { packageVersion } from './packageRoot.ts';

/** Version of this package. Add-on packages (`@flashinfer/cubin`, `@flashinfer/jit-cache`) have the same. */
export const version: string = /* @__PURE__ */ packageVersion();
