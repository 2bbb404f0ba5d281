"""How the page looks: one column of figures and words, two where there is room, and paper."""

from __future__ import annotations

from lifelong.display.report.colours import variables

STYLE = (
    variables()
    + """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main,header,nav{max-width:1320px;margin:0 auto;padding:0 24px}
header{padding-top:20px;position:relative}
h1{font-size:25px;line-height:1.25;font-weight:650;margin:0 110px 0 0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:21px;line-height:1.3;font-weight:650;margin:0 0 4px;overflow-wrap:anywhere}
h3{font-size:17px;font-weight:650;margin:44px 0 6px}
h4{font-size:14px;font-weight:650;margin:20px 0 2px}
h4::first-letter,summary::first-letter,figcaption::first-letter{text-transform:uppercase}
p{margin:0 0 8px}
.about,.note,figcaption{color:var(--muted);font-size:13px;line-height:1.45}
.about{margin:0 0 12px;overflow-wrap:anywhere}
.about span:not(:last-child)::after{content:"\\00a0\\00b7  "}
.answer{margin:0;padding:0;list-style:none;max-width:1150px}
.answer li{margin:0 0 3px;font-size:16.5px;line-height:1.42;overflow-wrap:anywhere}
.answer b{font-weight:650}
.answer li.warn{color:var(--method-2)}
.how{margin:5px 0 0;max-width:1150px}
.two{display:grid;grid-template-columns:minmax(0,760fr) minmax(0,520fr);gap:8px 32px;margin-top:12px;align-items:start}
figure{margin:0;min-width:0}
figcaption{margin:0 0 2px}
svg{display:block;width:100%;height:auto;font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow:visible;stroke-linejoin:round}
svg image{image-rendering:pixelated}
.small{display:none}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,290px),1fr));gap:14px 24px;align-items:start}
.panels .first{grid-column:span 2;grid-row:span 2}
.wide2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,590px),1fr));gap:16px 40px}
.three{margin-top:12px;display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,370px),1fr));gap:14px 24px}
.pair2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px 32px}
table{border-collapse:collapse;margin:8px 0 12px;font-size:14px;max-width:100%}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--grid);text-align:right;vertical-align:baseline;font-weight:400;overflow-wrap:break-word}
thead th{color:var(--muted);font-size:12.5px;line-height:1.3;vertical-align:bottom;border-color:var(--line);max-width:150px}
tbody th,.word{text-align:left}
tbody th{min-width:205px;max-width:420px;overflow-wrap:anywhere}
td.word{overflow-wrap:anywhere}
td{white-space:nowrap}
td.word{white-space:normal}
td:last-child,th:last-child{padding-right:0}
.flow{display:flex;flex-wrap:wrap;gap:2px 18px}
.pair{white-space:nowrap}
.words td,.words .pair{white-space:normal;overflow-wrap:anywhere}
.words .pair{display:block}
.words td.word{min-width:120px}
.pair b{font-weight:400;color:var(--muted)}
.dot{display:inline-block;width:9px;height:9px;border-radius:50%;background:var(--c);border:2px solid var(--c);margin-right:7px}
.dot.open{background:none;border-radius:0;transform:rotate(45deg) scale(.85)}
.name{cursor:default;display:inline-flex;align-items:baseline}
.name .dot{flex:none}
.chips{display:flex;flex-wrap:wrap;gap:2px 20px;margin:4px 0 12px;font-size:13.5px}
.chips .name{overflow-wrap:anywhere}
details{border-top:1px solid var(--grid);padding:9px 0}
details:last-of-type{border-bottom:1px solid var(--grid)}
details>summary{cursor:pointer;font-size:15px}
details>summary small{color:var(--muted);font-size:13px;margin-left:6px}
details[open]>summary{margin-bottom:6px}
code,pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0}
.command{display:flex;gap:10px;align-items:flex-start;padding:5px 0}
.command code{flex:1;overflow-wrap:anywhere;white-space:pre-wrap}
button{font:inherit;font-size:12.5px;color:var(--muted);background:none;border:1px solid var(--line);border-radius:6px;padding:2px 10px;cursor:pointer;white-space:nowrap}
button:hover{color:var(--ink);border-color:var(--ink)}
.theme{position:absolute;right:24px;top:24px}
nav ol{margin:8px 0 0;padding:0 0 0 20px}
nav a{color:inherit}
section{padding:2px 0 0}
section+section{border-top:2px solid var(--line);margin-top:52px;padding-top:28px}
[data-lit] [data-m]{opacity:.16}
[data-lit] [data-m].lit{opacity:1}
footer{color:var(--muted);font-size:13px;margin:36px 0 28px}
@media (max-width:1080px){.two{grid-template-columns:minmax(0,1fr)}.two figure{max-width:800px}}
@media screen and (max-width:820px){
thead{display:none}
table,tbody,tr,tbody th,td{display:block;width:100%;max-width:none}
tr{border-bottom:1px solid var(--line);padding:6px 0}
tbody th,td{border:0;padding:2px 0;text-align:left;white-space:normal}
tbody th{font-weight:600}
td{display:flex;justify-content:space-between;gap:16px;text-align:right}
td::before{content:attr(data-of);color:var(--muted);text-align:left}
td.word{display:block;text-align:left}
td.word::before{display:block}
}
@media screen and (max-width:640px){
main,header,nav{padding:0 14px}
header{padding-top:14px}
h1{font-size:21px;margin-right:0}
.theme{position:static;margin:4px 0 8px}
.answer li{font-size:15.5px}
.large{display:none}.small{display:block}
.panels .first{grid-column:auto;grid-row:auto}
}
@media print{
@page{size:A4;margin:14mm}
body{font-size:11.5px;print-color-adjust:exact;-webkit-print-color-adjust:exact}
main,header,nav{max-width:none;padding:0}
header{padding-top:0}
.theme,button{display:none}
h1{font-size:19px;margin-right:0}h2{font-size:17px}h3{font-size:14px;margin-top:24px;break-after:avoid}
.answer li{font-size:13px}
.two{grid-template-columns:minmax(0,1fr);gap:12px}.two figure{max-width:640px}
.panels{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px 12px}
.pair2{grid-template-columns:1fr 1fr}.wide2{grid-template-columns:1fr}.wide2 figure{max-width:520px}
table{font-size:10.5px}thead th{font-size:9.5px}tbody th{min-width:150px}
figure,tr,details,li{break-inside:avoid}
section+section{break-before:page;border:0;margin:0;padding:0}
}
"""
)

SCRIPT = """
(()=>{const root=document.documentElement;
document.querySelector('.theme').addEventListener('click',()=>{const dark=root.dataset.theme?root.dataset.theme==='dark':matchMedia('(prefers-color-scheme:dark)').matches;root.dataset.theme=dark?'light':'dark'});
for(const section of document.querySelectorAll('section')){let lit=null;section.addEventListener('mouseover',event=>{const at=event.target.closest('[data-m]'),m=at?at.dataset.m:null;if(m===lit)return;lit=m;for(const e of section.querySelectorAll('.lit'))e.classList.remove('lit');if(m===null){section.removeAttribute('data-lit');return}section.setAttribute('data-lit',m);for(const e of section.querySelectorAll('[data-m="'+m+'"]'))e.classList.add('lit')})}
for(const button of document.querySelectorAll('button.copy'))button.addEventListener('click',async()=>{const code=button.parentNode.querySelector('code');try{await navigator.clipboard.writeText(code.textContent)}catch{const range=document.createRange();range.selectNodeContents(code);getSelection().removeAllRanges();getSelection().addRange(range);document.execCommand('copy')}button.textContent='copied';setTimeout(()=>button.textContent='copy',1500)})
})()
"""
