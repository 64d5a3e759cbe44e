import { BatchDecodeWithPagedKVCacheWrapper } from './dist/index.js';
function table(kvLens, pageSize){ const indptr=new Int32Array(kvLens.length+1); kvLens.forEach((l,i)=>indptr[i+1]=indptr[i]+Math.ceil(l/pageSize)); const n=indptr.at(-1); const ids=Int32Array.from({length:n},(_, i)=>i); let s=1; for(let i=n-1;i>0;--i){s=(Math.imul(s,1664525)+1013904223)>>>0; const j=s%(i+1); const t=ids[i]; ids[i]=ids[j]; ids[j]=t;} return {pagedKvIndptr:indptr,pagedKvIndices:ids,pagedKvLastPageLen:kvLens.map(l=>((l-1)%pageSize)+1),pageSize}; }
const only=process.argv[2];
for (const [B,L] of [[1,1024],[64,4096],[256,1024]]) { if(only&&+only!==B) continue;
  const kvLens=Array.from({length:B},(_, r)=>L-((r*7)%64));
  const opts={...table(kvLens,16), numQoHeads:32,numKvHeads:8,headDimQk:128,headDimVo:128,qDtype:'bfloat16'};
  const w=new BatchDecodeWithPagedKVCacheWrapper({device:'cuda:0'});
  w.plan(opts); if(process.env.SHOW) console.log(w.planned.numItems, w.planned.layout);
  const samples=[]; const rounds=+(process.argv[3]??1500);
  for(let r=0;r<rounds;++r){ const t=process.hrtime.bigint(); for(let i=0;i<16;++i) w.plan(opts); if(process.env.SHOW) console.log(w.planned.numItems, w.planned.layout); samples.push(Number(process.hrtime.bigint()-t)/16000); }
  samples.splice(0,20);samples.sort((a,b)=>a-b); console.log('B'+B, 'min',samples[0].toFixed(1),'p10',samples[samples.length/10|0].toFixed(1),'median',samples[samples.length>>1].toFixed(1),'us');
}
