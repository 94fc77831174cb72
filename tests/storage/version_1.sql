BEGIN TRANSACTION;
CREATE TABLE arrays (
	digest TEXT NOT NULL,
	dtype TEXT NOT NULL,
	shape_json TEXT NOT NULL,
	data BLOB NOT NULL,
	PRIMARY KEY (digest)
);
INSERT INTO "arrays" VALUES('21afef75f9ec34438a5806f60b5111f62c44e2382a4373e66f62dee234dba5f9','<i8','[4]',X'789C636280002E28CD0DA579A1340002680025');
INSERT INTO "arrays" VALUES('086ed2f171ce5ab524e7534f9c9cd225b62c62b169d57acfb960ed6087ec1f5f','<i8','[10]',X'789C6360C00F18D16826349A198D06000160000D');
INSERT INTO "arrays" VALUES('ba709312760a826fbc151058c411502fe93f6cd10e19115c6904a4de5a19d603','<i8','[10]',X'789C636280006628CD06A519A13417946681D2DC509A1F4AF3426976280D0009D00049');
INSERT INTO "arrays" VALUES('dd97f5ef20516af2729bc7e87c641cd9c4832b33a387930c610f1d70e240ee82','<f4','[10]',X'789C636068B06340C10CF6D830006E6E0473');
INSERT INTO "arrays" VALUES('c2aa9d61bd4f690314e009e78a8793b32ab29cfdbb598cbe3215b7cd005e2daa','<f4','[16]',X'789C014000BFFF5582363F6923D43FCF116C406BB2443F5FCEB13F69CD0C401D58BA3F339602407F61104058A3CA3E8CD96540D3C05140EBAA1040468D844038B1193F98B4ED3F43EC1AC6');
INSERT INTO "arrays" VALUES('7fdee48485f5b75cd0f13c4f05c4551f35926e8c317d5e2480571696f1adcf8e','|i1','[4]',X'789C63606064040000070003');
INSERT INTO "arrays" VALUES('bd2678b0190dc33305fa15fc8c938c57f2ead1e94517942437fc0de9e94bd41f','<f2','[6, 16]',X'789C63A87365489069D79DC1C3509764F25089A18EA12E5E77BD06435DA62243DD574D863A1B89648D83EABAC20C756A1A5C6220F91506A7B519EA6EEB30D4B102E5F70918A9DFD2F33766A88BD55007CB97E8E402C51FC833D4AD03EAB2D17D2928A9B10728E22FF5D504247F8B410FA8375D85A14E559DA16EA9EA23D12B9C739818EA76687C9005C92FD3782DC55017AECF50D72EC95057A060A31723FB06A87AB3AC901C48BE49EB0CD07DDE40136FAB020017183936');
INSERT INTO "arrays" VALUES('ca2526eb97c4a6466fa83ac78150f85900aecc3ab290f9df4fba393928bde231','<f2','[6, 16]',X'789C63A8BBC1B9C5B051759E02431D9B4CBA01431D43DD0A0D637D86BA5A7186BAFF5A0C7562DA3F85EFCB2AAB01E5B52D0D41F2C9825C620C7549AA0C75F27A0C75EA269C4A3F84197819EA66A9AA6B81E40F7084EA32D4EDD661A8B302AA79AE795225456CAD0943DD129DA7BC20F9442D66A0B8A200439D2150DD6B9D32953F728D1A0C75610C330440F2FF556580AED102DAF8459DA1EE90F802B56EB5B32A0C758D06F3D541F2EEB29640D56CCA0C75151C0040B5361D');
INSERT INTO "arrays" VALUES('6e080c379df82e3c19c241f607172ae9c660d2fb29d902dbe8b724dd5f6ad1b4','<f4','[6]',X'789CD3F6E7B3AF6EB861D766C66ABF5855D49EE77C8ADDEC0BD3EC00632608B1');
INSERT INTO "arrays" VALUES('e676e25788833ab5210954e21aca9f9ca2093a9232592c8becf7beaf0105d737','<f4','[6]',X'789CBBBFF1B1DD34E3B5765C2A57EDE62F7A67C7C5636E77D4B7D00E0090F30A60');
CREATE TABLE choices (
	run TEXT NOT NULL,
	position INTEGER NOT NULL,
	text TEXT NOT NULL,
	probability DOUBLE,
	is_expected BOOLEAN,
	PRIMARY KEY (run, position),
	FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "choices" VALUES('6ccbe71ce65f111b1344a817e5ae786b',0,'red',2.18114727405128910886e-01,1);
INSERT INTO "choices" VALUES('6ccbe71ce65f111b1344a817e5ae786b',1,'blue',3.49796702707300455337e-01,0);
INSERT INTO "choices" VALUES('6ccbe71ce65f111b1344a817e5ae786b',2,'white',0.327466495082891,0);
INSERT INTO "choices" VALUES('6ccbe71ce65f111b1344a817e5ae786b',3,'green',2.59917076748741072977e-02,0);
INSERT INTO "choices" VALUES('6ccbe71ce65f111b1344a817e5ae786b',4,'yellow',7.8630367129805520121e-02,0);
CREATE TABLE comparisons (
	number INTEGER NOT NULL,
	id TEXT NOT NULL,
	owner TEXT NOT NULL,
	is_sample BOOLEAN NOT NULL,
	created_utc TEXT NOT NULL,
	image TEXT NOT NULL,
	image_json TEXT NOT NULL,
	question TEXT NOT NULL,
	choices_json TEXT NOT NULL,
	expected TEXT,
	evidence_json TEXT NOT NULL,
	family TEXT NOT NULL,
	task TEXT NOT NULL,
	model TEXT NOT NULL,
	notices_json TEXT NOT NULL,
	PRIMARY KEY (number),
	UNIQUE (id)
);
INSERT INTO "comparisons" VALUES(1,'4023aaa114f438ab0a0bc53f7115ca32','',0,'2026-01-01T00:00:00Z','cc88f6acf10ba9e488201201e9067fd63fc23aeb64fcf686578e6d900fceeef6','{"digest":"cc88f6acf10ba9e488201201e9067fd63fc23aeb64fcf686578e6d900fceeef6","name":"scene-000.tif","width":256,"height":256,"crs":"EPSG:32632","transform":[0.5,0.0,500000.0,0.0,-0.5,5400000.0],"window":null,"rendering":"","is_synthetic":true}','what colour is the largest building?','["red","blue","white","green","yellow"]','red','[[96.0,80.0,160.0,144.0]]','object-semantic','colour','embedded','[]');
CREATE TABLE failures (
	number INTEGER NOT NULL,
	id TEXT NOT NULL,
	owner TEXT NOT NULL,
	created_utc TEXT NOT NULL,
	request_json TEXT NOT NULL,
	stage TEXT NOT NULL,
	reason TEXT NOT NULL,
	PRIMARY KEY (number),
	UNIQUE (id)
);
CREATE TABLE images (
	digest TEXT NOT NULL,
	size_bytes BIGINT NOT NULL,
	received_utc TEXT NOT NULL,
	is_awaited BOOLEAN NOT NULL,
	PRIMARY KEY (digest)
);
CREATE TABLE jobs (
	number INTEGER NOT NULL,
	id TEXT NOT NULL,
	owner TEXT NOT NULL,
	created_utc TEXT NOT NULL,
	state TEXT NOT NULL,
	progress DOUBLE NOT NULL,
	message TEXT NOT NULL,
	request_json TEXT NOT NULL,
	comparison TEXT NOT NULL,
	worker TEXT NOT NULL,
	heartbeat_utc TEXT,
	is_cancel_requested BOOLEAN NOT NULL,
	PRIMARY KEY (number),
	UNIQUE (id)
);
CREATE TABLE panes (
	comparison TEXT NOT NULL,
	position INTEGER NOT NULL,
	strategy TEXT NOT NULL,
	run TEXT,
	failure TEXT,
	reason TEXT NOT NULL,
	lowest INTEGER,
	state TEXT NOT NULL,
	PRIMARY KEY (comparison, position),
	FOREIGN KEY(comparison) REFERENCES comparisons (id) ON DELETE CASCADE,
	FOREIGN KEY(run) REFERENCES runs (id) ON DELETE SET NULL,
	FOREIGN KEY(failure) REFERENCES failures (id) ON DELETE SET NULL
);
INSERT INTO "panes" VALUES('4023aaa114f438ab0a0bc53f7115ca32',0,'dualcomp@0.25','6ccbe71ce65f111b1344a817e5ae786b',NULL,'',NULL,'done');
CREATE TABLE router (
	run TEXT NOT NULL,
	position INTEGER NOT NULL,
	stage TEXT,
	layer INTEGER,
	stream TEXT NOT NULL,
	share DOUBLE,
	lambda DOUBLE,
	rho DOUBLE,
	score DOUBLE,
	threshold DOUBLE,
	PRIMARY KEY (run, position),
	FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "router" VALUES('6ccbe71ce65f111b1344a817e5ae786b',0,'encoder',NULL,'semantic',0.5,0.5,0.25,0.3,0.85);
INSERT INTO "router" VALUES('6ccbe71ce65f111b1344a817e5ae786b',1,'encoder',NULL,'geometric',0.5,0.5,0.25,0.3,NULL);
CREATE TABLE run_arrays (
	run TEXT NOT NULL,
	name TEXT NOT NULL,
	digest TEXT NOT NULL,
	PRIMARY KEY (run, name),
	FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE,
	FOREIGN KEY(digest) REFERENCES arrays (digest)
);
INSERT INTO "run_arrays" VALUES('6ccbe71ce65f111b1344a817e5ae786b','anchor','21afef75f9ec34438a5806f60b5111f62c44e2382a4373e66f62dee234dba5f9');
INSERT INTO "run_arrays" VALUES('6ccbe71ce65f111b1344a817e5ae786b','weight_output','086ed2f171ce5ab524e7534f9c9cd225b62c62b169d57acfb960ed6087ec1f5f');
INSERT INTO "run_arrays" VALUES('6ccbe71ce65f111b1344a817e5ae786b','weight_token','ba709312760a826fbc151058c411502fe93f6cd10e19115c6904a4de5a19d603');
INSERT INTO "run_arrays" VALUES('6ccbe71ce65f111b1344a817e5ae786b','weight_value','dd97f5ef20516af2729bc7e87c641cd9c4832b33a387930c610f1d70e240ee82');
INSERT INTO "run_arrays" VALUES('6ccbe71ce65f111b1344a817e5ae786b','scores','c2aa9d61bd4f690314e009e78a8793b32ab29cfdbb598cbe3215b7cd005e2daa');
INSERT INTO "run_arrays" VALUES('6ccbe71ce65f111b1344a817e5ae786b','stream','7fdee48485f5b75cd0f13c4f05c4551f35926e8c317d5e2480571696f1adcf8e');
INSERT INTO "run_arrays" VALUES('6ccbe71ce65f111b1344a817e5ae786b','attention_answer','bd2678b0190dc33305fa15fc8c938c57f2ead1e94517942437fc0de9e94bd41f');
INSERT INTO "run_arrays" VALUES('6ccbe71ce65f111b1344a817e5ae786b','attention_question','ca2526eb97c4a6466fa83ac78150f85900aecc3ab290f9df4fba393928bde231');
INSERT INTO "run_arrays" VALUES('6ccbe71ce65f111b1344a817e5ae786b','answer_mass','6e080c379df82e3c19c241f607172ae9c660d2fb29d902dbe8b724dd5f6ad1b4');
INSERT INTO "run_arrays" VALUES('6ccbe71ce65f111b1344a817e5ae786b','question_mass','e676e25788833ab5210954e21aca9f9ca2093a9232592c8becf7beaf0105d737');
CREATE TABLE run_records (
	run TEXT NOT NULL,
	record_json TEXT NOT NULL,
	PRIMARY KEY (run),
	FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "run_records" VALUES('6ccbe71ce65f111b1344a817e5ae786b','{"id":"6ccbe71ce65f111b1344a817e5ae786b","created_utc":"2026-01-01T00:00:00Z","request":{"image":{"digest":"cc88f6acf10ba9e488201201e9067fd63fc23aeb64fcf686578e6d900fceeef6","name":"scene-000.tif","width":256,"height":256,"crs":"EPSG:32632","transform":[0.5,0.0,500000.0,0.0,-0.5,5400000.0],"window":null,"rendering":"","is_synthetic":true},"question":"what colour is the largest building?","choices":["red","blue","white","green","yellow"],"model":{"name":"embedded","family":"llava","revision":"9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c","layers":6,"parameters":6200000},"strategy":"dualcomp@0.25","strategy_version":1,"seed":0,"dtype":"float32","record":["attention","router","scores"]},"grid":{"image_size":[256,256],"views":[{"rows":4,"cols":4,"box":[0.0,0.0,256.0,256.0],"name":"image"}]},"selection":{"tokens":16,"extra":0,"router":{"lambda":0.5,"rho":0.25,"stream shares":{"semantic":0.5,"geometric":0.5},"margins":{"lambda":0.3},"thresholds":{"tau":0.85},"source":"rule","rho_source":"rule","reason":"how many"},"diagnostics":{"clusters":4}},"answer":{"text":"red","choices":["red","blue","white","green","yellow"],"probabilities":[0.2181147274051289,0.34979670270730046,0.327466495082891,0.025991707674874107,0.07863036712980552],"choice_mass":0.9722140646839277,"expected":"red"},"cost":{"encode":{"median":0.04146798887106121,"low":0.040297885224662,"high":0.059714425581311,"repeats":3},"compress":{"median":0.003942893105469129,"low":0.0036108719823372574,"high":0.004006314505436186,"repeats":3},"prefill":{"median":0.025354976866862396,"low":0.025316893869179968,"high":0.029395907882755076,"repeats":3},"decode":null,"prefill_flops":48000000,"encode_flops":64000000,"kv_cache_bytes":24576,"peak_memory_bytes":536870912,"device":"cpu","dtype":"float32","threads":1,"warmup":1},"tokens_requested":4,"tokens_realised":4.0,"tokens_per_layer":[4,4,4,4,4,4],"evidence":[[96.0,80.0,160.0,144.0]],"evidence_recall":1.0,"family":"object-semantic","task":"colour","labels":["training-free reconstruction"],"notices":[],"environment":{"keepmap":"0.1.0","commit":"0000000000000000000000000000000000000000","python":"3.11.7","device":"cpu"},"comparison":"4023aaa114f438ab0a0bc53f7115ca32"}');
CREATE TABLE runs (
	number INTEGER NOT NULL,
	id TEXT NOT NULL,
	owner TEXT NOT NULL,
	is_sample BOOLEAN NOT NULL,
	comparison TEXT NOT NULL,
	request TEXT NOT NULL,
	created_utc TEXT NOT NULL,
	model TEXT NOT NULL,
	model_family TEXT NOT NULL,
	model_revision TEXT NOT NULL,
	strategy TEXT NOT NULL,
	strategy_name TEXT NOT NULL,
	strategy_stage TEXT,
	strategy_params_json TEXT NOT NULL,
	budget_requested INTEGER,
	budget_realised DOUBLE NOT NULL,
	tokens_total INTEGER NOT NULL,
	tokens_kept INTEGER NOT NULL,
	retention_ratio DOUBLE NOT NULL,
	image TEXT NOT NULL,
	image_name TEXT NOT NULL,
	image_width INTEGER NOT NULL,
	image_height INTEGER NOT NULL,
	crs TEXT,
	question TEXT NOT NULL,
	question_family TEXT NOT NULL,
	task TEXT NOT NULL,
	answer TEXT NOT NULL,
	answer_expected TEXT,
	is_correct BOOLEAN,
	confidence DOUBLE,
	choice_mass DOUBLE,
	seed BIGINT NOT NULL,
	device TEXT NOT NULL,
	dtype TEXT NOT NULL,
	encode_seconds DOUBLE,
	compress_seconds DOUBLE,
	prefill_seconds DOUBLE NOT NULL,
	decode_seconds DOUBLE,
	prefill_flops BIGINT NOT NULL,
	kv_cache_bytes BIGINT NOT NULL,
	peak_memory_bytes BIGINT,
	evidence_recall DOUBLE,
	labels_json TEXT NOT NULL,
	keepmap_version TEXT NOT NULL,
	code_commit TEXT NOT NULL,
	PRIMARY KEY (number),
	UNIQUE (id)
);
INSERT INTO "runs" VALUES(1,'6ccbe71ce65f111b1344a817e5ae786b','',0,'4023aaa114f438ab0a0bc53f7115ca32','6449da34ba5bd7a170c8e183be623089203a64a0fb65a228ad3f41f107c4ec73','2026-01-01T00:00:00Z','embedded','llava','9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c','dualcomp@0.25','dualcomp','encoder','{"tau0":0.75,"tau_slope":0.2,"theta0":4.0,"theta_slope":1.0,"beta":1.0,"connectivity":"8","scale":true,"weight_floor":0.02,"rho_min":0.02,"per":"view"}',4,4.0,16,4,0.25,'cc88f6acf10ba9e488201201e9067fd63fc23aeb64fcf686578e6d900fceeef6','scene-000.tif',256,256,'EPSG:32632','what colour is the largest building?','object-semantic','colour','red','red',1,2.18114727405128910886e-01,9.72214064683927681187e-01,0,'cpu','float32',4.14679888710612065683e-02,3.94289310546912935562e-03,2.53549768668623956568e-02,NULL,48000000,24576,536870912,1.0,'["training-free reconstruction"]','0.1.0','0000000000000000000000000000000000000000');
CREATE TABLE schema_steps (
	name TEXT NOT NULL,
	position INTEGER NOT NULL,
	applied_utc TEXT NOT NULL,
	PRIMARY KEY (name),
	UNIQUE (position)
);
INSERT INTO "schema_steps" VALUES('0001 first tables',1,'2026-11-21T04:45:52Z');
CREATE INDEX ix_runs_image ON runs (image);
CREATE INDEX ix_runs_created ON runs (created_utc, number);
CREATE INDEX ix_runs_comparison ON runs (comparison);
CREATE INDEX ix_runs_owner ON runs (owner, created_utc);
CREATE INDEX ix_runs_request ON runs (request);
CREATE INDEX ix_failures_owner ON failures (owner, created_utc);
CREATE INDEX ix_comparisons_owner ON comparisons (owner, created_utc);
CREATE INDEX ix_comparisons_created ON comparisons (created_utc, number);
CREATE INDEX ix_comparisons_image ON comparisons (image);
CREATE INDEX ix_jobs_state ON jobs (state, number);
CREATE INDEX ix_run_arrays_digest ON run_arrays (digest);
CREATE INDEX ix_panes_run ON panes (run);
CREATE VIEW v_runs AS SELECT runs.id AS run, runs.request, runs.created_utc, runs.model, runs.model_family, runs.model_revision, runs.strategy, runs.strategy_name, runs.strategy_stage, runs.strategy_params_json, runs.budget_requested, runs.budget_realised, runs.tokens_total, runs.tokens_kept, runs.retention_ratio, runs.image, runs.image_name, runs.image_width, runs.image_height, runs.crs, runs.question, runs.question_family, runs.task, runs.answer, runs.answer_expected, runs.is_correct, runs.confidence, runs.choice_mass, runs.seed, runs.device, runs.dtype, runs.encode_seconds, runs.compress_seconds, runs.prefill_seconds, runs.decode_seconds, runs.prefill_flops, runs.kv_cache_bytes, runs.peak_memory_bytes, runs.evidence_recall, runs.labels_json, runs.keepmap_version, runs.code_commit
FROM runs;
CREATE VIEW v_choices AS SELECT choices.run, choices.position AS choice, choices.text, choices.probability, choices.is_expected
FROM choices;
CREATE VIEW v_router AS SELECT router.run, router.stage, router.layer, router.stream, router.share, router.lambda, router.rho, router.score, router.threshold
FROM router;
CREATE VIEW v_failures AS SELECT failures.id AS failure, failures.request_json, failures.stage, failures.reason, failures.created_utc
FROM failures;
COMMIT;
